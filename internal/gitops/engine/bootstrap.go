package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	log "github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"github.com/argoproj/argo-cd/v3/common"
	passwordutil "github.com/argoproj/argo-cd/v3/util/password"

	"github.com/slipwayhq/slipway/internal/gitops"
	"github.com/slipwayhq/slipway/internal/kubewatch"
	"github.com/slipwayhq/slipway/internal/manifest"
)

const (
	// platformAccount is the Argo CD account with which the platform calls the API.
	platformAccount = gitops.PolicyAccount
	// appliedAnnotation holds the digests of the values the platform set.
	appliedAnnotation = "slipway.dev/applied-defaults"
	// forgeCredsName is the Secret with the credential for the platform's repositories.
	forgeCredsName = "slipway-forge"
)

// bootstrap makes the cluster ready for Argo CD: definitions, namespace,
// ConfigMaps, Secrets. It may run any number of times.
type bootstrap struct {
	config  *gitops.Config
	kube    kubernetes.Interface
	dynamic dynamic.Interface
}

func (b *bootstrap) run(ctx context.Context) error {
	crds, err := manifest.DecodeFiles(crdFiles, "crds")
	if err != nil {
		return err
	}
	if err := manifest.ApplyCRDs(ctx, b.dynamic, crds, pause); err != nil {
		return err
	}
	if err := b.namespace(ctx); err != nil {
		return err
	}
	for _, cm := range []struct {
		name     string
		defaults map[string]string
	}{
		{common.ArgoCDConfigMapName, b.configMapDefaults()},
		{common.ArgoCDRBACConfigMapName, rbacDefaults()},
		{"argocd-cmd-params-cm", nil},
		{common.ArgoCDKnownHostsConfigMapName, map[string]string{common.DefaultSSHKnownHostsName: knownHosts}},
		{common.ArgoCDTLSCertsConfigMapName, nil},
		{common.ArgoCDGPGKeysConfigMapName, nil},
		{notificationsConfig, nil},
	} {
		if err := b.configMap(ctx, cm.name, cm.defaults); err != nil {
			return err
		}
	}
	if err := b.argoSecret(ctx); err != nil {
		return err
	}
	if err := b.secret(ctx, "argocd-notifications-secret", partOf(), nil); err != nil {
		return err
	}
	return b.forgeCredentials(ctx)
}

// pause is the time between two looks at something that should happen soon.
func pause(ctx context.Context) error {
	return kubewatch.Pause(ctx, 100*time.Millisecond)
}

func partOf() map[string]string { return map[string]string{"app.kubernetes.io/part-of": "argocd"} }

func (b *bootstrap) namespace(ctx context.Context) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: Namespace}}
	_, err := b.kube.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{FieldManager: manifest.FieldManager})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create namespace %s: %w", Namespace, err)
	}
	return nil
}

func (b *bootstrap) configMapDefaults() map[string]string {
	m := configDefaults(b.config.API.ExternalURL)
	if o := b.config.API.OIDC; o != nil {
		m["oidc.config"] = fmt.Sprintf(`name: Slipway
issuer: %s
clientID: %s
enablePKCEAuthentication: true
requestedScopes: [openid, profile, groups]
`, o.Issuer, o.ClientID)
	}
	return m
}

// configMap creates a ConfigMap with the defaults or merges them into what is
// there; see manifest.MergeDefaults.
func (b *bootstrap) configMap(ctx context.Context, name string, defaults map[string]string) error {
	client := b.kube.CoreV1().ConfigMaps(Namespace)
	cm, err := client.Get(ctx, name, metav1.GetOptions{})
	missing := apierrors.IsNotFound(err)
	if missing {
		cm = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: Namespace}}
	} else if err != nil {
		return fmt.Errorf("read ConfigMap %s: %w", name, err)
	}
	applied := map[string]string{}
	if s := cm.Annotations[appliedAnnotation]; s != "" {
		if err := json.Unmarshal([]byte(s), &applied); err != nil {
			return fmt.Errorf("ConfigMap %s: annotation %s: %w", name, appliedAnnotation, err)
		}
	}
	data, digests := manifest.MergeDefaults(cm.Data, applied, defaults)
	note, err := json.Marshal(digests)
	if err != nil {
		return err
	}
	cm.Data = data
	setMeta(&cm.ObjectMeta, partOf())
	if len(digests) > 0 {
		cm.Annotations[appliedAnnotation] = string(note)
	}
	if missing {
		_, err = client.Create(ctx, cm, metav1.CreateOptions{FieldManager: manifest.FieldManager})
	} else {
		_, err = client.Update(ctx, cm, metav1.UpdateOptions{FieldManager: manifest.FieldManager})
	}
	if err != nil {
		return fmt.Errorf("write ConfigMap %s: %w", name, err)
	}
	return nil
}

func setMeta(m *metav1.ObjectMeta, labels map[string]string) {
	if m.Labels == nil {
		m.Labels = map[string]string{}
	}
	if m.Annotations == nil {
		m.Annotations = map[string]string{}
	}
	for k, v := range labels {
		m.Labels[k] = v
	}
}

// secret creates a Secret or sets the given keys in it; other keys stay.
func (b *bootstrap) secret(ctx context.Context, name string, labels map[string]string, data map[string][]byte) error {
	client := b.kube.CoreV1().Secrets(Namespace)
	s, err := client.Get(ctx, name, metav1.GetOptions{})
	missing := apierrors.IsNotFound(err)
	if missing {
		s = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: Namespace}}
	} else if err != nil {
		return fmt.Errorf("read Secret %s: %w", name, err)
	}
	setMeta(&s.ObjectMeta, labels)
	if s.Data == nil {
		s.Data = map[string][]byte{}
	}
	for k, v := range data {
		s.Data[k] = v
	}
	if missing {
		_, err = client.Create(ctx, s, metav1.CreateOptions{FieldManager: manifest.FieldManager})
	} else {
		_, err = client.Update(ctx, s, metav1.UpdateOptions{FieldManager: manifest.FieldManager})
	}
	if err != nil {
		return fmt.Errorf("write Secret %s: %w", name, err)
	}
	return nil
}

// argoSecret sets the platform's keys of argocd-secret. The admin password is
// set only when it differs, as setting it ends sessions.
func (b *bootstrap) argoSecret(ctx context.Context) error {
	data := map[string][]byte{}
	if f := b.config.Forge.WebhookSecretFile; f != "" {
		token, err := readSecret(f)
		if err != nil {
			return err
		}
		data["webhook.gitlab.secret"] = []byte(token)
	}
	if f := b.config.API.AdminPasswordFile; f != "" {
		password, err := readSecret(f)
		if err != nil {
			return err
		}
		if err := b.adminPassword(ctx, password, data); err != nil {
			return err
		}
	}
	return b.secret(ctx, common.ArgoCDSecretName, partOf(), data)
}

func (b *bootstrap) adminPassword(ctx context.Context, password string, data map[string][]byte) error {
	s, err := b.kube.CoreV1().Secrets(Namespace).Get(ctx, common.ArgoCDSecretName, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("read Secret %s: %w", common.ArgoCDSecretName, err)
	}
	if err == nil {
		if same, _ := passwordutil.VerifyPassword(password, string(s.Data["admin.password"])); same {
			return nil
		}
	}
	hash, err := passwordutil.HashPassword(password)
	if err != nil {
		return fmt.Errorf("admin password: %w", err)
	}
	data["admin.password"] = []byte(hash)
	data["admin.passwordMtime"] = []byte(time.Now().UTC().Format(time.RFC3339))
	return nil
}

// forgeCredentials lets Argo CD read every repository under the forge's URL.
func (b *bootstrap) forgeCredentials(ctx context.Context) error {
	f := b.config.Forge
	if f.PasswordFile == "" {
		return nil
	}
	password, err := readSecret(f.PasswordFile)
	if err != nil {
		return err
	}
	return b.secret(ctx, forgeCredsName, map[string]string{common.LabelKeySecretType: common.LabelValueSecretTypeRepoCreds}, map[string][]byte{
		"type":     []byte("git"),
		"url":      []byte(f.URL + "/"),
		"username": []byte(f.Username),
		"password": []byte(password),
		// Sends the credential at once: no 401 and no helper process per fetch.
		"forceHttpBasicAuth": []byte("true"),
	})
}

func readSecret(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read a secret: %w", err)
	}
	s := strings.TrimSpace(string(b))
	if s == "" {
		return "", errors.New("read a secret: " + file + " is empty")
	}
	return s, nil
}

// secretsCheck is how often the platform's secret files are looked at.
const secretsCheck = 5 * time.Second

// followSecrets writes the platform's secrets into the cluster again when one
// of their files changes: the platform may renew a credential while this
// program goes on.
func (b *bootstrap) followSecrets(ctx context.Context) error {
	files := []string{b.config.Forge.PasswordFile, b.config.Forge.WebhookSecretFile, b.config.API.AdminPasswordFile}
	last := fingerprint(files)
	tick := time.NewTicker(secretsCheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := fingerprint(files)
		if now == last {
			continue
		}
		if err := errors.Join(b.forgeCredentials(ctx), b.argoSecret(ctx)); err != nil {
			log.WithError(err).Warn("a changed secret could not be handed to Argo CD; trying again")
			continue
		}
		last = now
	}
}

// fingerprint changes when a file is written or replaced.
func fingerprint(files []string) string {
	var s strings.Builder
	for _, f := range files {
		if info, err := os.Stat(f); err == nil {
			fmt.Fprintf(&s, "%s %d %d\n", f, info.Size(), info.ModTime().UnixNano())
		}
	}
	return s.String()
}
