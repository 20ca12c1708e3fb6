package ingress

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func (a *app) secret(name string, data map[string]string) {
	a.t.Helper()
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: name, UID: "u", ResourceVersion: fmt.Sprint(appCount.Add(1))}, Data: map[string][]byte{}}
	for k, v := range data {
		s.Data[k] = []byte(v)
	}
	api := shared.client.CoreV1().Secrets(a.ns)
	if _, err := api.Update(a.t.Context(), s, metav1.UpdateOptions{}); err != nil {
		if _, err := api.Create(a.t.Context(), s, metav1.CreateOptions{}); err != nil {
			a.t.Fatal(err)
		}
	}
}

func (a *app) configMap(name string, data map[string]string) {
	a.t.Helper()
	config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: name}, Data: data}
	if _, err := shared.client.CoreV1().ConfigMaps(a.ns).Create(a.t.Context(), config, metav1.CreateOptions{}); err != nil {
		a.t.Fatal(err)
	}
}

// answers waits until a request is answered with a status.
func (a *app) answers(c *http.Client, url string, status int, header ...string) answer {
	a.t.Helper()
	var got answer
	eventually(a.t, fmt.Sprintf("%s answers %d", url, status), func() bool { got = get(a.t, c, url, header...); return got.status == status })
	return got
}

func basic(user, password string) string {
	r := http.Request{Header: http.Header{}}
	r.SetBasicAuth(user, password)
	return r.Header.Get("Authorization")
}

func TestBasicAuth(t *testing.T) {
	t.Parallel()
	hash, err := bcrypt.GenerateFromPassword([]byte("open sesame"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	a := echoApp(t, map[string]string{"auth-type": "basic", "auth-secret": "users", "auth-realm": "Shop"})
	c, url := client(t, false), "http://"+a.host+"/"
	// Without the Secret nobody gets in.
	got := a.answers(c, url, 401, "Authorization", basic("ann", "open sesame"))
	if got.header.Get("WWW-Authenticate") != `Basic realm="Shop"` {
		t.Errorf("asked with %v", got.header)
	}
	eventually(t, "the missing Secret is told", func() bool {
		return strings.Contains(strings.Join(shared.Problems()[a.ns+"/web"], " "), "Secret users does not exist")
	})
	a.secret("users", map[string]string{"auth": "ann:" + string(hash) + "\nben:{SHA}C+7Hteo/D9vJXQ3UfzxbwnXaijM=\neve:$apr1$deadbeef$no\n"})
	a.answers(c, url, 200, "Authorization", basic("ann", "open sesame"))
	a.answers(c, url, 200, "Authorization", basic("ben", "foo"))
	// A Secret that is there from the beginning is never told to be missing.
	early := newApp(t)
	early.secret("users", map[string]string{"auth": "ann:{SHA}C+7Hteo/D9vJXQ3UfzxbwnXaijM="})
	addr := early.backend(echo)
	early.service("web", nil, addr)
	early.ingress("web", map[string]string{"auth-type": "basic", "auth-secret": "users"}, pathOption{path: "/", service: "web"})
	early.waitEndpoints("web", addr)
	early.answers(c, "http://"+early.host+"/", 200, "Authorization", basic("ann", "foo"))
	events, err := shared.client.CoreV1().Events(early.ns).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(events.Items) > 0 {
		t.Errorf("events %v %v", events, err)
	}
	for _, wrong := range []string{basic("ann", "foo"), basic("nobody", "open sesame"), basic("ann", ""), "Bearer x", ""} {
		if got := get(t, c, url, "Authorization", wrong); got.status != 401 {
			t.Errorf("%q: %d", wrong, got.status)
		}
	}
	// A new password takes effect, also for who was let in before.
	a.secret("users", map[string]string{"auth": "ann:{SHA}C+7Hteo/D9vJXQ3UfzxbwnXaijM="})
	a.answers(c, url, 401, "Authorization", basic("ann", "open sesame"))
	a.answers(c, url, 200, "Authorization", basic("ann", "foo"))

	other := echoApp(t, map[string]string{"auth-type": "basic", "auth-secret": "map", "auth-secret-type": "auth-map", "satisfy": "any", "whitelist-source-range": "127.0.0.9"})
	other.secret("map", map[string]string{"ann": "{SHA}C+7Hteo/D9vJXQ3UfzxbwnXaijM="})
	other.answers(c, "http://"+other.host+"/", 200, "Authorization", basic("ann", "foo"))
	if got := get(t, c, "http://"+other.host+"/"); got.status != 401 {
		t.Errorf("neither address nor password: %d", got.status)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	u := newUsage()
	u.now = func() time.Time { return now }
	addr, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	l := &limits{rps: 2, multiplier: 3, connections: 100}
	admitted := func(a netip.Addr, n int) int {
		count := 0
		for range n {
			if leave, refused := u.enter("x/y", a, l); refused == "" {
				leave()
				count++
			}
		}
		return count
	}
	if n := admitted(addr, 20); n != 7 { // 2 × 3 at once, and one more
		t.Errorf("%d of a burst", n)
	}
	if n := admitted(other, 20); n != 7 {
		t.Errorf("%d of another client's burst", n)
	}
	now = now.Add(time.Second)
	if n := admitted(addr, 20); n != 2 {
		t.Errorf("%d a second later", n)
	}
	l = &limits{connections: 2, multiplier: 5}
	first, _ := u.enter("x/z", addr, l)
	if _, refused := u.enter("x/z", addr, l); refused != "" {
		t.Error(refused)
	}
	if _, refused := u.enter("x/z", addr, l); refused == "" {
		t.Error("a third request runs")
	}
	first()
	if _, refused := u.enter("x/z", addr, l); refused != "" {
		t.Error(refused)
	}

	a := echoApp(t, map[string]string{"limit-rps": "1", "limit-burst-multiplier": "1"})
	last := answer{}
	for range 3 {
		last = get(t, client(t, false), "http://"+a.host+"/")
	}
	if last.status != 503 || last.header.Get("Retry-After") != "1" || !strings.Contains(last.body, "1 times per second") {
		t.Errorf("beyond the limit: %d %s", last.status, last.body)
	}
}

func TestHashKeepsItsEndpoint(t *testing.T) {
	t.Parallel()
	be := &backend{rotation: &sequence{}}
	for i := range 5 {
		be.endpoints = append(be.endpoints, &endpoint{addr: fmt.Sprint(i), id: fmt.Sprint("id", i)})
	}
	before, share := map[string]*endpoint{}, map[*endpoint]int{}
	for i := range 1000 {
		text := fmt.Sprint("/path/", i)
		before[text] = be.pickBy(text, nil, time.Now())
		share[before[text]]++
	}
	for e, n := range share {
		if n < 120 || n > 280 {
			t.Errorf("endpoint %s has %d of 1000", e.addr, n)
		}
	}
	gone := be.endpoints[2]
	be.endpoints = append(be.endpoints[:2:2], be.endpoints[3:]...)
	for text, e := range before {
		if now := be.pickBy(text, nil, time.Now()); e != gone && now != e {
			t.Fatalf("%s moved from %s to %s", text, e.addr, now.addr)
		}
	}
	var set settings
	if err := parseHashBy(&set, "$http_x_tenant-${arg_id}"); err != nil {
		t.Fatal(err)
	}
	r, _ := http.NewRequest("GET", "http://x/?id=7", nil)
	r.Header.Set("X-Tenant", "t1")
	if got := set.hashBy.of(r); got != "t1-7" {
		t.Errorf("hashed by %q", got)
	}
	for _, bad := range []string{"$nope", "${host", "constant"} {
		if parseHashBy(&set, bad) == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestCustomHeadersAndWWW(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.configMap("headers", map[string]string{"X-Frame-Options": "DENY", "Content-Length": "1"})
	addr := a.backend(echo)
	a.service("web", nil, addr)
	a.ingress("web", map[string]string{"custom-headers": a.ns + "/headers", "from-to-www-redirect": "true"}, pathOption{path: "/", service: "web"})
	a.waitEndpoints("web", addr)
	eventually(t, "the header is set", func() bool {
		got := get(t, client(t, false), "http://"+a.host+"/")
		return got.status == 200 && got.header.Get("X-Frame-Options") == "DENY" && strings.HasPrefix(got.body, "GET /")
	})
	if problems := fmt.Sprint(shared.Problems()[a.ns+"/web"]); !strings.Contains(problems, `"Content-Length" is not a header that can be set`) {
		t.Errorf("problems %s", problems)
	}
	if got := get(t, client(t, false), "http://www."+a.host+"/a?b=c"); got.status != 308 || got.header.Get("Location") != "http://"+a.host+"/a?b=c" {
		t.Errorf("www: %d %s", got.status, got.header.Get("Location"))
	}
}

func TestAccessLog(t *testing.T) {
	t.Parallel()
	a := echoApp(t, nil)
	quiet := echoApp(t, map[string]string{"enable-access-log": "false"})
	get(t, client(t, false), "http://"+quiet.host+"/")
	get(t, client(t, false), "http://"+a.host+"/path?token=hidden", "User-Agent", "probe/1")
	var entry accessEntry
	eventually(t, "the request is in the access log", func() bool {
		f, err := os.Open(shared.cfg.AccessLog)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if strings.Contains(lines.Text(), quiet.host) || strings.Contains(lines.Text(), "hidden") {
				t.Fatalf("logged: %s", lines.Text())
			}
			if strings.Contains(lines.Text(), a.host) {
				return json.Unmarshal(lines.Bytes(), &entry) == nil
			}
		}
		return false
	})
	if entry.Path != "/path" || entry.Status != 200 || entry.Bytes == 0 || entry.Client != "127.0.0.1" || entry.Service != "web" || entry.Ingress != "web" || entry.Agent != "probe/1" || entry.RequestID == "" || entry.Method != "GET" {
		t.Errorf("entry %+v", entry)
	}
}

// A load balancer that is trusted tells the client's address by the PROXY
// protocol; from others it is no request.
func TestProxyProtocol(t *testing.T) {
	t.Parallel()
	a := echoApp(t, nil)
	ask := func(from byte) string {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, from)}, Timeout: 5 * time.Second}
		c, err := d.DialContext(t.Context(), "tcp", shared.http)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(c, "PROXY TCP4 203.0.113.7 192.0.2.1 4711 80\r\nGET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", a.host)
		body, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	if got := ask(4); !strings.Contains(got, "X-Real-Ip=203.0.113.7 ") {
		t.Errorf("from the load balancer: %s", got)
	}
	if got := ask(1); !strings.HasPrefix(got, "HTTP/1.1 400") {
		t.Errorf("from anybody: %s", got)
	}
}
