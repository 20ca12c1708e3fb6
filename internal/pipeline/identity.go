package pipeline

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline/gitlabci"
)

// tokenKeys sign the ID tokens of jobs (RS256).
type tokenKeys struct {
	key *rsa.PrivateKey
	kid string
}

// signingKeys returns the keys, which are read, or made, when they are needed
// for the first time: making one takes a while.
func (e *Engine) signingKeys(ctx context.Context) (*tokenKeys, error) {
	e.keysMu.Lock()
	defer e.keysMu.Unlock()
	if e.keys == nil {
		keys, err := e.loadTokenKeys(ctx)
		if err != nil {
			return nil, err
		}
		e.keys = keys
	}
	return e.keys, nil
}

// loadTokenKeys reads the signing key, and makes one when there is none.
func (e *Engine) loadTokenKeys(ctx context.Context) (*tokenKeys, error) {
	var sealed string
	if err := e.store.View(ctx, func(tx Tx) error {
		var err error
		sealed, err = tx.Setting("id token key")
		return err
	}); err != nil {
		return nil, err
	}
	if sealed == "" {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return nil, fmt.Errorf("pipeline: ID token key: %w", err)
		}
		text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
		sealed = e.seal.Seal(string(text))
		if err := e.store.Update(ctx, func(tx Tx) error { return tx.SetSetting("id token key", sealed) }); err != nil {
			return nil, err
		}
	}
	text, err := e.seal.Open(sealed)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, fmt.Errorf("pipeline: ID token key is damaged")
	}
	key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("pipeline: ID token key: %w", err)
	}
	sum := sha256.Sum256(x509.MarshalPKCS1PublicKey(&key.PublicKey))
	return &tokenKeys{key, base64.RawURLEncoding.EncodeToString(sum[:])}, nil
}

// ServeJWKS answers /oauth/discovery/keys: the public key of ID tokens.
func (e *Engine) ServeJWKS(w http.ResponseWriter, r *http.Request) {
	keys, err := e.signingKeys(r.Context())
	if err != nil {
		e.runnerError(w, r, err)
		return
	}
	n := base64.RawURLEncoding.EncodeToString(keys.key.N.Bytes())
	exp := base64.RawURLEncoding.EncodeToString(big.NewInt(int64(keys.key.E)).Bytes())
	e.serveJSON(w, map[string]any{"keys": []map[string]string{{"kty": "RSA", "kid": keys.kid, "use": "sig", "alg": "RS256", "n": n, "e": exp}}})
}

// SignToken signs claims with the key of ID tokens.
func (e *Engine) SignToken(ctx context.Context, claims jwt.MapClaims) (string, error) {
	keys, err := e.signingKeys(ctx)
	if err != nil {
		return "", err
	}
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, claims)
	token.Header["kid"] = keys.kid
	signed, err := token.SignedString(keys.key)
	if err != nil {
		return "", fmt.Errorf("pipeline: sign ID token: %w", err)
	}
	return signed, nil
}

// PublicKey returns the key that verifies what SignToken signs.
func (e *Engine) PublicKey(ctx context.Context) (*rsa.PublicKey, error) {
	keys, err := e.signingKeys(ctx)
	if err != nil {
		return nil, err
	}
	return &keys.key.PublicKey, nil
}

func (e *Engine) serveJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		e.log.Debug("reply not sent", "err", err)
	}
}

// addTokensAndSecrets adds what id_tokens and secrets ask for.
func (e *Engine) addTokensAndSecrets(ctx context.Context, c *jobContext) error {
	for _, t := range c.options.IDTokens {
		token, err := e.idToken(ctx, c, t.Aud)
		if err != nil {
			return err
		}
		c.predefined = append(c.predefined, delivery.JobVariable{Key: t.Name, Value: token, Masked: true, Raw: true})
	}
	if err := e.addCluster(ctx, c); err != nil {
		return err
	}
	for i := range c.options.Secrets {
		v, err := e.secret(ctx, c, &c.options.Secrets[i])
		if err != nil {
			return unmet{err}
		}
		c.predefined = append(c.predefined, v)
	}
	return nil
}

// idToken signs a token with GitLab's claims (doc/ci/secrets/id_token_authentication).
func (e *Engine) idToken(ctx context.Context, c *jobContext, audiences []string) (string, error) {
	now := e.clock.Now()
	scope := gitlabci.Merge(plainVariables(c.predefined), c.options.Variables).Lookup()
	aud := make([]string, len(audiences))
	for i, a := range audiences {
		aud[i] = gitlabci.Expand(a, scope)
	}
	get := func(name string) string { v, _ := scope(name); return v }
	refType := "branch"
	if c.pipeline.Tag {
		refType = "tag"
	}
	claims := jwt.MapClaims{
		"iss": e.cfg.ExternalURL, "jti": newToken(""), "iat": now.Unix(), "nbf": now.Add(-5 * time.Second).Unix(),
		"exp":          now.Add(time.Duration(c.job.Timeout)*time.Second + time.Minute).Unix(),
		"sub":          fmt.Sprintf("project_path:%s:ref_type:%s:ref:%s", c.project.FullPath, refType, c.pipeline.Ref),
		"namespace_id": id(c.project.Namespace.ID), "namespace_path": c.project.Namespace.FullPath,
		"project_id": id(c.project.ID), "project_path": c.project.FullPath, "project_visibility": string(c.project.Visibility),
		"user_id": id(c.job.UserID), "user_login": get("GITLAB_USER_LOGIN"), "user_email": get("GITLAB_USER_EMAIL"), "user_access_level": "",
		"pipeline_id": id(c.pipeline.ID), "pipeline_source": c.pipeline.Source, "job_id": id(c.job.ID),
		"ref": c.pipeline.Ref, "ref_type": refType, "ref_path": c.pipeline.FullRef(), "ref_protected": strconv.FormatBool(c.pipeline.Protected),
		"sha": c.pipeline.SHA, "ci_config_sha": c.pipeline.SHA,
		"ci_config_ref_uri":  e.server.fqdn + "/" + c.project.FullPath + "//" + configPath(c.project) + "@" + c.pipeline.FullRef(),
		"runner_environment": "self-hosted",
	}
	if len(aud) == 1 {
		claims["aud"] = aud[0]
	} else {
		claims["aud"] = aud
	}
	if c.job.Environment != "" {
		claims["environment"] = c.job.Environment
		claims["environment_protected"] = "false"
		claims["deployment_tier"] = get("CI_ENVIRONMENT_TIER")
		claims["environment_action"] = c.job.EnvironmentAction
	}
	return e.SignToken(ctx, claims)
}

// secret reads an entry of the built-in secret store. vault's path and field
// and the name of gitlab_secrets_manager address it; other providers are
// refused, because their servers are not asked.
func (e *Engine) secret(ctx context.Context, c *jobContext, s *gitlabci.Secret) (delivery.JobVariable, error) {
	text := func(key string) string { v, _ := s.Settings[key].(string); return v }
	path, field := "", "value"
	switch s.Provider {
	case "vault":
		path, field = text("path"), text("field")
	case "gitlab_secrets_manager":
		path = text("name")
	default:
		return delivery.JobVariable{}, delivery.Errorf(delivery.Invalid, "secrets:%s: the provider %s is not offered; the built-in store answers vault and gitlab_secrets_manager.", s.Name, s.Provider)
	}
	scope := gitlabci.Merge(plainVariables(c.predefined), c.options.Variables).Lookup()
	path, field = strings.Trim(gitlabci.Expand(path, scope), "/"), gitlabci.Expand(field, scope)
	var sealed string
	err := e.store.View(ctx, func(tx Tx) error {
		owners := []Secret{{Owner: OwnerProject, OwnerID: c.project.ID}}
		for _, g := range factGroups(c.pipeline.Facts) {
			owners = append(owners, Secret{Owner: OwnerGroup, OwnerID: g})
		}
		for _, o := range append(owners, Secret{Owner: OwnerInstance}) {
			list, err := tx.Secrets(o.Owner, o.OwnerID)
			if err != nil {
				return err
			}
			for _, have := range list {
				if have.Path == path && have.Field == field && sealed == "" {
					sealed = have.Sealed
				}
			}
		}
		return nil
	})
	if err != nil {
		return delivery.JobVariable{}, err
	}
	if sealed == "" {
		return delivery.JobVariable{}, delivery.Errorf(delivery.Invalid, "secrets:%s: the secret store has no %s with the field %s for this project.", s.Name, path, field)
	}
	value, err := e.seal.Open(sealed)
	return delivery.JobVariable{Key: s.Name, Value: value, File: s.File, Masked: true, Raw: true}, err
}
