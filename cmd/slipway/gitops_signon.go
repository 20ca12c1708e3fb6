package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/gitops"
	"github.com/slipwayhq/slipway/internal/openid"
)

// argoClient is Argo CD's name at the platform's OpenID provider.
const argoClient = "argocd"

// openSignOn makes the OpenID provider, with which people sign in to Argo CD.
func (p *platform) openSignOn(context.Context) error {
	p.signOn = openid.New(openid.Options{
		Issuer: p.ExternalURL, Signer: p.pipelines, People: peopleForSignOn{p},
		Clients: []openid.Client{{ID: argoClient, Name: "Argo CD", Redirects: []string{
			p.ExternalURL + "/argocd/auth/callback", "http://localhost/auth/callback", "http://127.0.0.1/auth/callback",
		}}},
	})
	p.signOn.Register(p.mux)
	return nil
}

// peopleForSignOn implements openid.People and gitops.People.
type peopleForSignOn struct{ *platform }

// Authenticate implements gitops.People.
func (a peopleForSignOn) Authenticate(r *http.Request) (delivery.Identity, error) {
	return a.access.Authenticate(r)
}

// account finds an account that may sign in.
func (a peopleForSignOn) account(ctx context.Context, id int64) (delivery.Identity, error) {
	u, err := a.access.User(ctx, id)
	if err != nil {
		return delivery.Identity{}, err
	}
	if u.Blocked {
		return delivery.Identity{}, &delivery.Error{Kind: delivery.NotFound, Message: "This account is blocked.", Next: "Ask an administrator."}
	}
	return delivery.Identity{Kind: delivery.SessionUser, User: &u, Name: u.Username}, nil
}

// Person implements openid.People.
func (a peopleForSignOn) Person(ctx context.Context, id int64) (openid.Person, error) {
	who, err := a.account(ctx, id)
	if err != nil {
		return openid.Person{}, err
	}
	return a.person(ctx, who)
}

// Signed implements gitops.People.
func (a peopleForSignOn) Signed(ctx context.Context, token string) (delivery.Identity, error) {
	id, _, err := a.signOn.Verify(ctx, token, argoClient)
	if err != nil {
		if delivery.KindOf(err) == delivery.Unauthenticated {
			err = &delivery.Error{Kind: delivery.Unauthenticated, Message: "Your sign-in is over or was refused.", Next: "Sign in again: argocd login --sso", Err: err}
		}
		return delivery.Identity{}, err
	}
	who, err := a.account(ctx, id)
	if delivery.IsNotFound(err) {
		err = &delivery.Error{Kind: delivery.Unauthenticated, Message: "This account is blocked.", Err: err}
	}
	return who, err
}

// mintLifetime is how long a token of the gate works: longer than any request
// is watched, and far shorter than a sign-in.
const mintLifetime = 10 * time.Minute

// Mint implements gitops.People.
func (a peopleForSignOn) Mint(ctx context.Context, who delivery.Identity) (string, error) {
	person, err := a.person(ctx, who)
	if err != nil {
		return "", err
	}
	return a.signOn.Token(ctx, argoClient, person, mintLifetime)
}

// loginLifetime is how long a sign-in by password lasts, as one in the browser.
const loginLifetime = 12 * time.Hour

// Login implements gitops.People. The sign-in is a token of its own, which would
// outlive an access token and its limits: those are used as they are.
func (a peopleForSignOn) Login(r *http.Request, username, password string) (token string, known bool, err error) {
	ctx := r.Context()
	if _, err := a.access.UserByName(ctx, username); delivery.IsNotFound(err) {
		return "", false, nil
	} else if err != nil {
		return "", false, err
	}
	who, err := a.access.AuthenticateBasic(ctx, username, password, access.RemoteAddress(r))
	if err != nil {
		if err == error(access.ErrWrongCredentials) {
			err = delivery.Errorf(delivery.Unauthenticated, "The user name or the password is wrong.")
		}
		return "", true, err
	}
	if who.Kind != delivery.SessionUser {
		return "", true, &delivery.Error{Kind: delivery.Forbidden, Message: "There is no sign-in with an access token.",
			Next: "Use it as it is: ARGOCD_AUTH_TOKEN=TOKEN argocd --server HOST app list. With two-factor authentication: argocd login HOST --sso."}
	}
	person, err := a.person(ctx, who)
	if err != nil {
		return "", true, err
	}
	token, err = a.signOn.Token(ctx, argoClient, person, loginLifetime)
	return token, true, err
}

// person describes the caller with the names that Argo CD's policies use. A
// token that only reads has no more than a reporter's.
func (a peopleForSignOn) person(ctx context.Context, who delivery.Identity) (openid.Person, error) {
	u := who.User
	person := openid.Person{ID: u.ID, Username: u.Username, Name: u.Name, Email: u.Email, Groups: []string{}}
	most := delivery.Owner
	if who.Scopes != nil && !who.HasScope("api") {
		most = delivery.Reporter
	}
	add := func(path string, role delivery.Role) {
		person.Groups = append(person.Groups, gitops.PolicyNames(path, min(role, most))...)
	}
	if who.Kind != delivery.ProjectToken {
		person.Groups = append(person.Groups, gitops.PolicyUsers)
		if u.Admin && most == delivery.Owner {
			person.Groups = append(person.Groups, gitops.PolicyAdmins)
			return person, nil
		}
		if u.Admin {
			person.Groups = append(person.Groups, gitops.PolicyAuditors)
			return person, nil
		}
		groups, _, err := a.access.Groups(ctx, access.GroupFilter{Viewer: u.ID, MinRole: delivery.Guest}, 0, 0)
		if err != nil {
			return person, err
		}
		for _, g := range groups {
			role, err := a.access.GroupRoleIn(ctx, who, g.ID)
			if err != nil {
				return person, err
			}
			add(g.FullPath, role)
		}
	}
	apps, _ := a.applications.List()
	seen := map[string]bool{}
	for _, app := range apps {
		path, ok := gitops.SourceProject(a.ExternalURL, app)
		if !ok || seen[path] {
			continue
		}
		seen[path] = true
		_, role, err := a.access.VisibleProject(ctx, who, path)
		if delivery.IsNotFound(err) {
			continue
		}
		if err != nil {
			return person, err
		}
		add(path, role)
	}
	return person, nil
}

// policyKey is where the platform writes its part of Argo CD's policy; keys of
// this form are added to policy.csv.
const policyKey = "policy.slipway.csv"

// policyPause gathers changes, and policyEvery looks for those that no
// Application tells of: visibility and names of projects.
const (
	policyPause = 200 * time.Millisecond
	policyEvery = 30 * time.Second
)

// followPolicy keeps Argo CD's policy as the Applications and projects are.
func (p *platform) followPolicy(ctx context.Context) error {
	var written string // while nothing else has passed since the last look
	for {
		changed, wait := p.applications.Changed(), policyEvery
		policy, err := p.policy(ctx)
		if err == nil && policy != "" && policy != written {
			err = p.writePolicy(ctx, policy)
		}
		if err == nil {
			written = policy
		} else if ctx.Err() == nil {
			p.log.Warn("Argo CD's policy was not written; trying again", "err", err)
			wait = time.Second
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
			written = "" // somebody may have changed it
		case <-changed:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(policyPause):
		}
	}
}

// policy is what should be written; "" while the Applications are not known.
func (p *platform) policy(ctx context.Context) (string, error) {
	apps, fresh := p.applications.List()
	if !fresh {
		return "", nil
	}
	var failed error
	known := map[string]bool{}
	policy := gitops.Policy(p.ExternalURL, apps, func(path string) bool {
		open, ok := known[path]
		if ok {
			return open
		}
		project, err := p.access.Project(ctx, path)
		if err != nil && !delivery.IsNotFound(err) {
			failed = err
		}
		known[path] = err == nil && project.Visibility != delivery.Private
		return known[path]
	})
	return policy, failed
}

func (p *platform) writePolicy(ctx context.Context, policy string) error {
	kube, err := p.clusterClient()
	if err != nil {
		return err
	}
	maps := kube.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace(gitops.Namespace)
	now, err := maps.Get(ctx, "argocd-rbac-cm", metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read argocd-rbac-cm: %w", err)
	}
	if have, _, _ := unstructured.NestedString(now.Object, "data", policyKey); have == policy {
		return nil
	}
	body, err := json.Marshal(map[string]any{"data": map[string]string{policyKey: policy}})
	if err != nil {
		return err
	}
	_, err = maps.Patch(ctx, "argocd-rbac-cm", types.MergePatchType, body, metav1.PatchOptions{FieldManager: "slipway"})
	if err != nil {
		return fmt.Errorf("write argocd-rbac-cm: %w", err)
	}
	return nil
}
