package pipeline

import (
	"bytes"
	"encoding/json"
	"hash/crc32"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

func TestTraceCoversSecretsAcrossPieces(t *testing.T) {
	t.Parallel()
	text := "begin hunter2-hunter2 and s3cr3t, again hunter2-hunter2hunter2-hunter2 end hunter2-\n"
	want := strings.ReplaceAll(strings.ReplaceAll(text, "hunter2-hunter2", "[MASKED]*******"), "s3cr3t", "[MASKE")
	for seed := range 200 {
		r := rand.New(rand.NewSource(int64(seed)))
		path := filepath.Join(t.TempDir(), "trace")
		tr, err := openTrace(path, []string{"hunter2-hunter2", "s3cr3t"}, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(text); {
			n := min(1+r.Intn(12), len(text)-at)
			if _, err := tr.append(int64(at), []byte(text[at:at+n])); err != nil {
				t.Fatal(err)
			}
			at += n
			shown, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if s := string(shown[:tr.visible()]); !strings.HasPrefix(want, s) {
				t.Fatalf("seed %d: shown %q", seed, s)
			}
		}
		if ok, err := tr.check("crc32:"+hex8(crc32.ChecksumIEEE([]byte(text))), int64(len(text))); !ok || err != nil {
			t.Fatalf("checksum: %v %v", ok, err)
		}
		if err := tr.close(); err != nil {
			t.Fatal(err)
		}
		got, _ := os.ReadFile(path)
		if string(got) != want {
			t.Fatalf("seed %d:\n got %q\nwant %q", seed, got, want)
		}
	}
}

func hex8(v uint32) string {
	const digits = "0123456789abcdef"
	var b [8]byte
	for i := 7; i >= 0; i-- {
		b[i] = digits[v&15]
		v >>= 4
	}
	return string(b[:])
}

func TestTraceContinuesAfterARestart(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "trace")
	a, err := openTrace(path, nil, 100)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := a.append(0, []byte("hello ")); n != 6 || err != nil {
		t.Fatal(n, err)
	}
	a.close()
	b, err := openTrace(path, nil, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	if n, err := b.append(3, []byte("lo world")); n != 11 || err != nil {
		t.Errorf("overlap: %d %v", n, err)
	}
	if n, err := b.append(50, []byte("x")); n != 11 || err != errOffset {
		t.Errorf("gap: %d %v", n, err)
	}
	if _, err := b.append(11, bytes.Repeat([]byte("x"), 200)); delivery.KindOf(err) != delivery.TooLarge {
		t.Errorf("over the limit: %v", err)
	}
	if ok, _ := b.check("crc32:"+hex8(crc32.ChecksumIEEE([]byte("hello world"))), 11); !ok {
		t.Error("the checksum does not survive the restart")
	}
}

func TestEnvironmentScopes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		scope, name string
		want        bool
	}{
		{"*", "", true}, {"*", "x", true}, {"production", "production", true}, {"production", "", false}, {"review/*", "review/a", true},
		{"review/*", "staging", false}, {"*/prod", "eu/prod", true}, {"*/prod", "eu/prod/x", false}, {"a*b*c", "a1b2c", true}, {"a*b*c", "acb", false}, {"prod", "production", false},
	} {
		if got := scopeMatches(c.scope, c.name); got != c.want {
			t.Errorf("%s matches %q: %v", c.scope, c.name, got)
		}
	}
	list := configured{{Owner: "project", Key: "A", Value: "star", Environment: "*"}, {Owner: "project", Key: "A", Value: "exact", Environment: "review/a"}, {Owner: "project", Key: "A", Value: "glob", Environment: "review/*"}}
	if v, _ := list.variables("review/a").Get("A"); v.Value != "exact" {
		t.Errorf("most specific: %q", v.Value)
	}
	if v, _ := list.variables("review/b").Get("A"); v.Value != "glob" {
		t.Errorf("pattern: %q", v.Value)
	}
}

func TestRunnerMatching(t *testing.T) {
	t.Parallel()
	job := &queued{projectID: 7, groups: []int64{100, 1}, tags: []string{"docker", "arm"}}
	plain := &queued{projectID: 7, protected: true}
	for name, c := range map[string]struct {
		r    Runner
		j    *queued
		want bool
	}{
		"tags":                        {Runner{Kind: InstanceRunner, Tags: []string{"arm", "docker", "x"}}, job, true},
		"a missing tag":               {Runner{Kind: InstanceRunner, Tags: []string{"docker"}, RunUntagged: true}, job, false},
		"untagged":                    {Runner{Kind: InstanceRunner, RunUntagged: true}, plain, true},
		"untagged refused":            {Runner{Kind: InstanceRunner, Tags: []string{"x"}}, plain, false},
		"paused":                      {Runner{Kind: InstanceRunner, RunUntagged: true, Paused: true}, plain, false},
		"group":                       {Runner{Kind: GroupRunner, OwnerID: 1, Tags: []string{"arm", "docker"}}, job, true},
		"other group":                 {Runner{Kind: GroupRunner, OwnerID: 2, RunUntagged: true}, plain, false},
		"project":                     {Runner{Kind: ProjectRunner, Projects: []int64{5, 7}, RunUntagged: true}, plain, true},
		"other project":               {Runner{Kind: ProjectRunner, Projects: []int64{5}, RunUntagged: true}, plain, false},
		"protected refs only":         {Runner{Kind: InstanceRunner, RunUntagged: true, RefProtected: true}, plain, true},
		"protected refs only, others": {Runner{Kind: InstanceRunner, Tags: []string{"docker", "arm"}, RefProtected: true}, job, false},
	} {
		if got := c.j.suits(&c.r); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestQueueIsFairAmongProjects(t *testing.T) {
	t.Parallel()
	q := newQueue()
	r := &Runner{ID: 1, Kind: InstanceRunner, RunUntagged: true}
	for i := range int64(4) {
		q.push(&queued{jobID: i + 1, projectID: 1})
	}
	q.push(&queued{jobID: 10, projectID: 2})
	var order []int64
	for range 5 {
		j, err := q.take(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		q.started(j.projectID)
		order = append(order, j.jobID)
	}
	if order[0] != 1 || order[1] != 10 || order[2] != 2 {
		t.Errorf("order %v", order)
	}
}

func TestReportFormats(t *testing.T) {
	t.Parallel()
	junit, err := parseJUnit([]byte(`<?xml version="1.0"?><testsuites><testsuite name="s"><testcase classname="c" name="ok" time="1.5"/>
		<testcase name="bad"><failure message="boom">trace</failure></testcase><testcase name="err"><error/></testcase><testcase name="skip"><skipped/></testcase></testsuite></testsuites>
		<?xml version="1.0"?><testsuite><testcase name="second file"/></testsuite>`))
	if err != nil || len(junit.Cases) != 5 || junit.Cases[0].ExecutionTime != 1.5 || junit.Cases[1].Status != "failed" || junit.Cases[1].SystemOutput != "boom\ntrace" || junit.Cases[3].Status != "skipped" {
		t.Errorf("junit %+v %v", junit, err)
	}
	if _, err := parseJUnit([]byte("no xml")); err == nil {
		t.Error("text is taken for JUnit")
	}
	cob, err := parseCobertura([]byte(`<coverage><packages><package><classes><class filename="a.go"><lines><line number="1" hits="2"/><line number="2" hits="0"/></lines></class></classes></package></packages></coverage>`))
	if err != nil || cob.Files["a.go"][1] != 2 || cob.Rate != 0.5 {
		t.Errorf("cobertura %+v %v", cob, err)
	}
	jac, err := parseJaCoCo([]byte(`<report name="x"><package name="com/x"><sourcefile name="A.java"><line nr="3" mi="0" ci="4"/></sourcefile></package></report>`))
	if err != nil || jac.Files["com/x/A.java"][3] != 4 {
		t.Errorf("jacoco %+v %v", jac, err)
	}
	cq, err := parseCodeQuality([]byte(`[{"description":"d","check_name":"c","severity":"Major","location":{"path":"a.go","lines":{"begin":3}}}]`))
	if err != nil || cq.Findings[0].Severity != "major" || cq.Findings[0].Line != 3 {
		t.Errorf("code quality %+v %v", cq, err)
	}
	sarif, err := parseSARIF([]byte(`{"runs":[{"tool":{"driver":{"rules":[{"id":"R1","helpUri":"https://x","properties":{"security-severity":"9.8"}}]}},"results":[{"ruleId":"R1","message":{"text":"m"},"locations":[{"physicalLocation":{"artifactLocation":{"uri":"f"},"region":{"startLine":7}}}]}]}]}`))
	if err != nil || sarif.Findings[0].Severity != "critical" || sarif.Findings[0].Line != 7 {
		t.Errorf("sarif %+v %v", sarif, err)
	}
	sec, err := parseSecurity([]byte(`{"vulnerabilities":[{"name":"CVE-1","severity":"High","location":{"image":"a:b","dependency":{"package":{"name":"zlib"},"version":"1"}},"identifiers":[{"name":"CVE-1","url":"u"}]}]}`))
	if err != nil || sec.Findings[0].Package != "zlib" || sec.Findings[0].Severity != "high" {
		t.Errorf("security %+v %v", sec, err)
	}
}

func TestCronFollowsTheTimeZone(t *testing.T) {
	t.Parallel()
	after := time.Date(2026, 3, 28, 12, 0, 0, 0, time.UTC)
	next, err := nextRun("30 2 * * *", "Europe/Berlin", after) // the clocks change in that night
	if err != nil || next.Before(after) || next.Sub(after) > 48*time.Hour {
		t.Errorf("%v %v", next, err)
	}
	for _, bad := range [][2]string{{"* * *", "UTC"}, {"0 1 * * *", "Mars/Base"}, {"", ""}} {
		if _, err := nextRun(bad[0], bad[1], after); delivery.KindOf(err) != delivery.Invalid {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestVersionsOfComponents(t *testing.T) {
	t.Parallel()
	tags := []delivery.Ref{{Name: "1.0.0"}, {Name: "1.2.0"}, {Name: "1.10.1"}, {Name: "2.0.0-rc1"}, {Name: "v3.0.0"}, {Name: "other"}}
	for version, want := range map[string]string{"~latest": "v3.0.0", "1": "1.10.1", "1.2": "1.2.0", "main": "", "4": "", "1.0.0": "1.0.0"} {
		if got := chooseVersion(tags, version); got != want {
			t.Errorf("%s: %q; want %q", version, got, want)
		}
	}
}

func TestBusyTimeLeavesOutPauses(t *testing.T) {
	t.Parallel()
	at := func(s int) time.Time { return time.Unix(1000+int64(s), 0) }
	jobs := []Job{{StartedAt: at(0), FinishedAt: at(10)}, {StartedAt: at(5), FinishedAt: at(15)}, {StartedAt: at(100), FinishedAt: at(101)}, {}}
	if d := busy(jobs, at(500)); d != 16*time.Second {
		t.Errorf("%v", d)
	}
}

func FuzzRunnerBody(f *testing.F) {
	f.Add("application/json", []byte(`{"token":"t","info":{"features":{}},"output":{"checksum":"crc32:0"}}`))
	f.Add("application/x-www-form-urlencoded", []byte("token=t&tag_list=a,b"))
	f.Fuzz(func(t *testing.T, media string, body []byte) {
		var b runnerBody
		if err := parseRunner(media, body, nil, &b); err != nil && delivery.KindOf(err) != delivery.Invalid {
			t.Errorf("%v", err)
		}
	})
}

func FuzzContentRange(f *testing.F) {
	f.Add("0-9", 10)
	f.Add("5-4", 0)
	f.Fuzz(func(t *testing.T, header string, size int) {
		if size < 0 {
			return
		}
		from, err := contentRange(header, size)
		if err == nil && from < 0 {
			t.Errorf("%q: %d", header, from)
		}
	})
}

func FuzzReports(f *testing.F) {
	f.Add([]byte("<testsuite><testcase/></testsuite>"))
	f.Add([]byte(`{"runs":[{}]}`))
	f.Add([]byte("A=b\nC='d'\n"))
	f.Add([]byte(`<coverage><sources><source>/builds/a</source></sources><packages><package><classes><class filename="a.py"><lines><line number="1" hits="2"/></lines></class></classes></package></packages></coverage>`))
	f.Add([]byte(`<report><package name="a/b"><sourcefile name="C.java"><line nr="3" mi="0" ci="2"/></sourcefile></package></report>`))
	f.Add([]byte(`[{"description":"d","check_name":"c","fingerprint":"f","severity":"major","location":{"path":"a.py","lines":{"begin":7}}}]`))
	f.Add([]byte(`{"version":"2.1.0","runs":[{"tool":{"driver":{"rules":[{"id":"R","properties":{"security-severity":"9.8"}}]}},"results":[{"ruleId":"R","level":"error","message":{"text":"m"},"locations":[{"physicalLocation":{"artifactLocation":{"uri":"a"},"region":{"startLine":1}}}]}]}]}`))
	f.Add([]byte(`{"vulnerabilities":[{"severity":"High","name":"CVE-1","location":{"dependency":{"package":{"name":"p"},"version":"1"}}}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, parse := range reportParsers {
			if v, err := parse(text); err == nil {
				if _, err := json.Marshal(v); err != nil {
					t.Error(err)
				}
			}
		}
		if vars, err := parseDotenv(text); err == nil {
			for _, v := range vars {
				if !validKey(v.Key) {
					t.Errorf("key %q", v.Key)
				}
			}
		}
	})
}

func FuzzTrace(f *testing.F) {
	f.Add([]byte("some secret1234 text"), uint8(3))
	f.Fuzz(func(t *testing.T, text []byte, step uint8) {
		path := filepath.Join(t.TempDir(), "trace")
		tr, err := openTrace(path, []string{"secret1234", "1234abcd"}, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(text); at += int(step) + 1 {
			if _, err := tr.append(int64(at), text[at:min(len(text), at+int(step)+1)]); err != nil {
				t.Fatal(err)
			}
		}
		if err := tr.close(); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(text) || bytes.Contains(got, []byte("secret1234")) || bytes.Contains(got, []byte("1234abcd")) {
			t.Errorf("%q became %q", text, got)
		}
	})
}
