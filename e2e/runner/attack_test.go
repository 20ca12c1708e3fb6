//go:build e2e

package runner_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/slipwayhq/slipway/e2e/runner/host"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/runner/runnertest"
)

// attempts are what a hostile job tries. Each line must fail; those that
// succeed print BREACH.
const attempts = `
try() { name="$1"; shift; if timeout 20 "$@" >/tmp/out 2>&1; then echo "BREACH $name"; cat /tmp/out; else echo "held: $name"; fi; }
reach() { timeout 3 bash -c "exec 3<>/dev/tcp/$1/$2" ; }
export -f reach
echo "platform: $(reach $HOST $OPEN && echo reached)"
echo "gateway's resolver is not the host: $(cat /etc/resolv.conf | head -1)"
try "mount a file system" mount -t tmpfs none /mnt
try "mount proc" mount -t proc none /mnt
try "new mount namespace" unshare -m true
try "new user namespace with mounts" unshare -rm mount -t tmpfs none /mnt
try "load a kernel module" bash -c 'echo 1 > /proc/sys/kernel/modules_disabled'
try "panic the host" bash -c 'echo c > /proc/sysrq-trigger'
try "change the host's name" bash -c 'echo evil > /proc/sys/kernel/hostname'
try "core pattern" bash -c 'echo "|/builds/x" > /proc/sys/kernel/core_pattern'
try "kernel memory" head -c1 /dev/mem
try "the host's disk" bash -c 'for m in 254:0 253:0 8:0 259:0; do rm -f /tmp/disk; mknod /tmp/disk b ${m/:/ } && head -c1 /tmp/disk && exit 0; done; exit 1'
try "write its cgroup" bash -c 'echo max > $(find /sys/fs/cgroup -name memory.max -o -name memory.limit_in_bytes | head -1)'
try "see other processes" bash -c 'ls -d /proc/[0-9]* | wc -l | { read n; [ $n -gt 20 ]; }'
try "trace init of the host" bash -c 'ls -l /proc/1/root/builds/../../../../tmp/ | grep -q slipway-attack-marker'
try "the host's closed port" reach $HOST $CLOSED
gw=$(while read -r i d g r; do [ "$d" = 00000000 ] && printf "%d.%d.%d.%d" 0x${g:6:2} 0x${g:4:2} 0x${g:2:2} 0x${g:0:2} || true; done </proc/net/route); echo "gateway $gw"
try "the gateway's closed port" reach $gw $CLOSED
try "the host's loopback by the gateway" reach $gw $LOOPBACK
try "the host's loopback by its address" reach $HOST $LOOPBACK
try "the host's loopback by 127.0.0.1" reach 127.0.0.1 $LOOPBACK
try "metadata" reach 169.254.169.254 80
try "the cluster's API" reach 10.92.0.1 443
try "a pod" reach 10.93.0.5 80
try "containerd's socket" bash -c 'find / -xdev \( -name "containerd*.sock*" -o -name "buildkitd.sock" -o -name "docker.sock" \) 2>/dev/null | grep .'
try "an abstract socket of the host" bash -c 'grep -c "@" /proc/net/unix | grep -v "^0$"'
try "forwarding in its network" bash -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
try "the host's page cache" bash -c 'echo 1 > /proc/sys/vm/drop_caches'
try "the kernel's log" bash -c 'timeout 2 head -c1 /proc/kmsg; timeout 2 dmesg | grep -q .'
try "kernel memory by /proc/kcore" bash -c 'head -c1 /proc/kcore | grep -q .'
try "firmware and devices" bash -c 'echo x > /sys/kernel/uevent_helper'
try "remount /proc/sys writable" mount -o remount,rw /proc/sys
try "leave its root" chroot /proc/1/root/.. ls /proc/1/ns/../../root/tmp/slipway-attack-marker
try "a keyring of the host" bash -c 'grep -c . /proc/keys | grep -v "^0$"'
try "another route" bash -c 'perl -e "use Socket; socket(S, AF_INET, SOCK_DGRAM, 0); ioctl(S, 0x890B, pack(\"x128\")) or exit 1"'
try "the clock" date -s 2000-01-01
try "a bpf program" perl -e 'exit(syscall(321, 5, 0, 0) < 0 ? 1 : 0)'
try "trace by perf" perl -e 'exit(syscall(298, 0, 0, -1, -1, 0) < 0 ? 1 : 0)'
try "load a module" perl -e 'exit(syscall(313, 0, 0, 0) < 0 ? 1 : 0)'
# Raw sockets are there, as in Docker; speaking in another job's name is not.
perl -MSocket -e 'socket(S, AF_INET, SOCK_RAW, 255) or exit; setsockopt(S, 0, 3, 1);
for my $net (0..7) { my $src = inet_aton("10.94.0.".($net*16+3)); my $udp = pack("nnnn", 4444, $ENV{OPEN}, 8, 0);
  for my $to ($ENV{HOST}, "203.0.113.9") { my $dst = inet_aton($to);
    send(S, pack("CCnnnCCn", 0x45, 0, 28, 1, 0, 64, 17, 0).$src.$dst.$udp, 0, sockaddr_in(0, $dst)); } } print "spoofed\n"'
for net in 0 1 2 3 4 5 6 7; do for ip in 1 2 3; do
  a=10.94.0.$((net*16+ip)); hostname -I 2>/dev/null | grep -qw $a && continue; grep -qw $a /etc/hosts && continue
  try "another job at $a" reach $a 7777
done; done
try "files of other jobs" bash -c 'find /builds -mindepth 1 -maxdepth 1 | grep -v "^/builds/group$"'
try "another job's endpoint" bash -c 'find / -xdev -name job.sock 2>/dev/null | grep -v "^/run/slipway/job.sock$"'
try "write to the endpoint's folder" touch /run/slipway/x
try "replace the docker command" bash -c 'echo x > /usr/local/bin/docker'
ln -s /etc /builds/group/project/etclink
try "docker run with a host folder" docker run --rm -v /etc:/x debian:bookworm-slim true
try "docker run through a link" docker run --rm -v /builds/group/project/etclink:/x debian:bookworm-slim true
try "docker run through dots" docker run --rm -v /builds/../etc:/x debian:bookworm-slim true
try "docker run privileged" docker run --rm --privileged debian:bookworm-slim true
try "docker run in the host's network" docker run --rm --network host debian:bookworm-slim bash -c "timeout 3 bash -c 'exec 3<>/dev/tcp/127.0.0.1/$LOOPBACK' || timeout 3 bash -c 'exec 3<>/dev/tcp/$HOST/$CLOSED'"
docker create --name thief debian:bookworm-slim true; docker run --name linked debian:bookworm-slim bash -c 'ln -s /tmp /up; ln -s ../../../../../../../../tmp /dots'
try "docker cp through a link" docker cp linked:/up/slipway-attack-marker got
try "docker cp through dots in a link" docker cp linked:/dots/slipway-attack-marker got
try "docker cp from above" docker cp thief:/../../../../../../../../tmp/slipway-attack-marker got
try "docker cp through a link of the job" docker cp thief:/etc/default etclink/default
try "docker create with a host folder" docker create -v /etc:/x debian:bookworm-slim true
docker run -d --name detached debian:bookworm-slim sleep 300
try "docker exec with privileges" docker exec --privileged detached true
try "docker exec mounting" docker exec detached mount -t tmpfs none /mnt
try "docker run reaching the host" docker run --rm debian:bookworm-slim bash -c "timeout 3 bash -c 'exec 3<>/dev/tcp/$HOST/$CLOSED'"
mkdir b; printf 'FROM debian:bookworm-slim\nRUN --security=insecure true\n' > b/insecure
printf 'FROM debian:bookworm-slim\nRUN --network=host true\n' > b/hostnet
printf 'FROM scratch\nADD http://%s:%s/ /x\n' $HOST $CLOSED > b/add
printf 'FROM debian:bookworm-slim\nRUN timeout 3 bash -c "exec 3<>/dev/tcp/%s/%s"\n' $HOST $CLOSED > b/reach
printf 'FROM debian:bookworm-slim\nRUN timeout 3 bash -c "exec 3<>/dev/tcp/10.94.0.2/7777" || timeout 3 bash -c "exec 3<>/dev/tcp/10.94.0.18/7777"  || timeout 3 bash -c "exec 3<>/dev/tcp/10.94.0.34/7777"\n' > b/other
ln -s /etc b/out; printf 'FROM scratch\nCOPY out/passwd /x\n' > b/follow
try "docker build with privileges" docker build -q -f b/insecure b
try "docker build in the host's network" docker build -q -f b/hostnet b
try "docker build fetching from the host" docker build -q -f b/add b
try "docker build reaching the host" docker build -q -f b/reach b
try "docker build reaching another job" docker build -q -f b/other b
try "docker build following a link out" docker build -q -f b/follow b
try "another job's image" docker run --rm victim/app:1 true
try "another job's image by pushing it" docker push victim/app:1
( for i in $(seq 3000); do sleep 60 & done ) 2>/tmp/fork || true; grep -q -i "resource\|fork" /tmp/fork && echo "held: fork bomb" || echo "BREACH fork bomb"
`

// dropped is the fence's rule against false addresses when it has caught some.
var dropped = regexp.MustCompile(`!= @origins counter packets [1-9]`)

// TestAttack runs a hostile job beside a victim.
func TestAttack(t *testing.T) {
	registry := host.Registry(t)
	b := host.Service(t, registry, nil)
	closed, err := net.Listen("tcp", host.Address(t)+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer closed.Close()
	victim := b.Job(host.Script(`printf 'FROM scratch\nCOPY file.txt /\n' > Dockerfile; docker build -q -t victim/app:1 . && echo the victim listens
exec perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(LocalPort => 7777, Listen => 5, ReuseAddr => 1) or die; while ($c = $s->accept) { close $c }'`)...)
	victim.Services = []delivery.JobImage{{Name: "debian:bookworm-slim", Alias: "secret", Entrypoint: []string{"perl", "-MIO::Socket::INET", "-e",
		`$s = IO::Socket::INET->new(LocalPort => 7777, Listen => 5, ReuseAddr => 1) or die; while ($c = $s->accept) { close $c }`}}}
	b.Push(victim)
	b.Says(victim.ID, "\nthe victim listens")
	loopback, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer loopback.Close()
	_, local, _ := net.SplitHostPort(loopback.Addr().String())
	marker := "/tmp/slipway-attack-marker"
	if err := os.WriteFile(marker, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(marker) })
	_, open, _ := net.SplitHostPort(registry)
	_, shut, _ := net.SplitHostPort(closed.Addr().String())
	attacker := b.Job(host.Script(attempts)...)
	attacker.Variables = []delivery.JobVariable{{Key: "HOST", Value: host.Address(t)}, {Key: "OPEN", Value: open}, {Key: "CLOSED", Value: shut}, {Key: "LOOPBACK", Value: local}}
	job := b.Do(attacker)
	plain := runnertest.Plain(job.Trace)
	if strings.Contains(plain, "\nBREACH") || !strings.Contains(plain, "held: fork bomb") || !strings.Contains(plain, "platform: reached") || !strings.Contains(plain, "gateway 10.94.0.") {
		t.Errorf("the job is %s:\n%s", job.Status, plain)
	}
	if rules, err := exec.Command("nft", "list", "table", "inet", "swr-jobs").CombinedOutput(); err != nil || !strings.Contains(plain, "\nspoofed\n") || !dropped.Match(rules) {
		t.Errorf("packets in another job's name were not dropped: %v\n%s", err, rules)
	}
	b.Cancel(victim.ID)
	b.End(victim.ID)
	t.Run("sources", func(t *testing.T) { attackSources(t, b) })
}

// saboteur is a service that waits for the job's repository and gives it
// filters, hooks and attributes that run a command wherever git is run next.
const saboteur = `while :; do for d in /builds/group/project/.git /builds/*/.git /builds/*/*/*/.git; do [ -f $d/config ] || continue
printf '[filter "own"]\n\tsmudge = touch %s; cat\n\tclean = touch %s; cat\n[core]\n\tfsmonitor = touch %s\n\thooksPath = %s\n[include]\n\tpath = /builds/x\n' $0 $0 $0 /builds/hooks >> $d/config
mkdir -p $d/info /builds/hooks; echo '* filter=own' > $d/info/attributes; printf '#!/bin/sh\ntouch %s\n' $0 > /builds/hooks/post-checkout; chmod +x /builds/hooks/post-checkout
done; done 2>/dev/null`

// attackSources has a service and a hook meddle with the checkout that the
// runner makes on the host, and a script with what the runner reads afterwards.
func attackSources(t *testing.T, b *runnertest.Bench) {
	owned := filepath.Join(t.TempDir(), "owned")
	for name, change := range map[string]func(*delivery.JobSpec){
		"service": func(*delivery.JobSpec) {},
		"service and hook": func(spec *delivery.JobSpec) { // a hook makes git start later
			spec.Hooks = []delivery.JobHook{{Name: "pre_get_sources_script", Script: []string{"mkdir -p .git; sleep 0.3"}}}
		},
		"place of the checkout": func(spec *delivery.JobSpec) {
			spec.Services[0].Entrypoint = []string{"bash", "-c", "while :; do rm -rf /builds/group; ln -sfn /etc /builds/group; rm -f /builds/group; mkdir -p /builds/group; done 2>/dev/null"}
		},
	} {
		spec := b.Job("cat file.txt", "cat .git/config")
		spec.Services = []delivery.JobImage{{Name: "debian:bookworm-slim", Alias: "saboteur", Entrypoint: []string{"bash", "-c", saboteur, owned}}}
		change(spec)
		job := b.Do(spec)
		if name != "place of the checkout" && job.Status != "success" {
			t.Errorf("%s: the job is %s:\n%s", name, job.Status, runnertest.Plain(job.Trace))
		}
		if _, err := os.Lstat(owned); err == nil {
			t.Fatalf("%s: a command of the job ran on the host:\n%s", name, runnertest.Plain(job.Trace))
		}
	}
	if _, err := os.Lstat("/etc/project"); err == nil {
		t.Error("the sources were put into a folder of the host")
	}
	// A pipe in place of what the runner reads must not hold it up.
	spec := b.Job("rm .git/index", "perl -MPOSIX -e 'mkfifo(\".git/index\", 0666) or die'", "echo x > new.txt")
	spec.Artifacts = []delivery.JobArtifact{{Untracked: true, Type: "archive", Format: "zip"}}
	check(t, b.Do(spec), "success", "untracked:")
}
