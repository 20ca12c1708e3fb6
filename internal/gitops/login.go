package gitops

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// maxLoginBytes bounds a name and a password.
const maxLoginBytes = 64 << 10

// Where `argocd login HOST` sends a name and a password: by gRPC and gRPC-Web,
// and as JSON by others (session.proto of Argo CD's API).
const (
	loginCall = "/session.SessionService/Create"
	loginPath = "/api/v1/session"
)

// credentials are the fields of Argo CD's SessionCreateRequest.
type credentials struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

// isLogin reports whether a request signs somebody in by password.
func isLogin(r *http.Request) bool {
	return r.Method == http.MethodPost && (strings.HasSuffix(r.URL.Path, loginCall) || strings.HasSuffix(r.URL.Path, loginPath))
}

// login signs a person of the platform in by name and password, so that
// `argocd login HOST` asks for what people know. Argo CD's own accounts are left
// to Argo CD.
func (g *Gate) login(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxLoginBytes))
	if err != nil {
		refuseCall(w, r, &delivery.Error{Kind: delivery.Invalid, Message: "The sign-in cannot be read.", Err: err})
		return
	}
	grpc := strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc")
	var c credentials
	if grpc {
		c, err = parseLogin(body)
	} else {
		err = json.Unmarshal(body, &c)
	}
	if err == nil && c.Username != "" {
		token, known, err := g.People.Login(r, c.Username, c.Password)
		switch {
		case err != nil:
			refuseCall(w, r, err)
			return
		case known && grpc:
			answerCall(w, r, protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), token))
			return
		case known:
			w.Header().Set("Content-Type", "application/json")
			// An error here means that the caller has gone.
			_ = json.NewEncoder(w).Encode(map[string]string{"token": token})
			return
		}
	}
	// What cannot be read here, Argo CD refuses in its own words.
	r = r.Clone(r.Context())
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	g.Next.ServeHTTP(w, r)
}

var errNoLogin = errors.New("no sign-in by name and password")

// parseLogin reads the one message of a gRPC call: a byte that says whether it
// is compressed, its length, and the fields (grpc/doc/PROTOCOL-HTTP2.md).
func parseLogin(body []byte) (credentials, error) {
	var c credentials
	if len(body) < 5 || body[0] != 0 || uint64(len(body)-5) != uint64(binary.BigEndian.Uint32(body[1:5])) {
		return c, errNoLogin
	}
	for b := body[5:]; len(b) > 0; {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 || kind != protowire.BytesType {
			return c, errNoLogin
		}
		value, m := protowire.ConsumeString(b[n:])
		if m < 0 {
			return c, errNoLogin
		}
		switch field {
		case 1:
			c.Username = value
		case 2:
			c.Password = value
		case 3:
			return c, errNoLogin // a token in place of both, which Argo CD refuses
		}
		b = b[n+m:]
	}
	return c, nil
}

// answerCall answers a call with one message, in the caller's protocol: gRPC
// has its status in HTTP's trailer, gRPC-Web in a last frame.
func answerCall(w http.ResponseWriter, r *http.Request, message []byte) {
	kind := r.Header.Get("Content-Type")
	w.Header().Set("Content-Type", kind)
	out := frame(0, message)
	if strings.HasPrefix(kind, "application/grpc-web") {
		out = append(out, frame(0x80, []byte("grpc-status: 0\r\n"))...)
	} else {
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	}
	// An error here means that the caller has gone.
	_, _ = w.Write(out)
}

func frame(flags byte, data []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(data))), data...)
}

// WebCalls lets gRPC-Web through to web, which has Argo CD's API below root,
// and everything else to calls: `argocd --grpc-web` asks at "/" unless it is
// told where the API is.
func WebCalls(root string, web, calls http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc-web") {
			below := *r.URL
			below.Path, below.RawPath = root+r.URL.Path, ""
			r = r.Clone(r.Context())
			r.URL = &below
			web.ServeHTTP(w, r)
			return
		}
		calls.ServeHTTP(w, r)
	})
}

// Logout hands `argocd logout` on to web where Argo CD itself had signed the
// caller in. Who signed in with the platform's accounts is told that only the
// program forgets the sign-in.
func Logout(root string, web http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := r.Cookie("argocd.token")
		if err != nil || strings.Count(c.Value, ".") != 2 || issuer(c.Value) != "argocd" {
			http.Error(w, "The program forgets this sign-in; on the server it ends by itself. Tokens are revoked on the pages.", http.StatusNotImplemented)
			return
		}
		below := *r.URL
		below.Path, below.RawPath = root+r.URL.Path, ""
		r = r.Clone(r.Context())
		r.URL = &below
		web.ServeHTTP(w, r)
	})
}
