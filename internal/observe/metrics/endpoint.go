package metrics

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/prometheus/common/model"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// secretTimeout bounds the reading of one Secret.
const secretTimeout = 5 * time.Second

// endpointOptions is what endpoints of ServiceMonitors and PodMonitors share.
type endpointOptions struct {
	path                           string
	scheme                         *monitoringv1.Scheme
	params                         map[string][]string
	interval, timeout              monitoringv1.Duration
	honorLabels                    bool
	honorTimestamps, filterRunning *bool
	relabelings, metricRelabelings []monitoringv1.RelabelConfig
	http                           monitoringv1.HTTPConfigWithoutTLS
	tls                            *monitoringv1.SafeTLSConfig
	files                          string // names of files, which are refused
	proxyURL                       *string
	sampleLimit, targetLimit       *uint64
}

// endpoint completes a scrape configuration, whose relabel_configs hold the
// selection and the standard labels already.
func (s *session) endpoint(c object, namespace string, o endpointOptions) error {
	if o.files != "" {
		return errors.New("files of the server may not be read by a monitor; use a Secret")
	}
	if o.http.OAuth2 != nil {
		return errors.New("oauth2 is not supported")
	}
	relabel := c["relabel_configs"].([]object)
	if o.filterRunning == nil || *o.filterRunning {
		relabel = append(relabel, object{"source_labels": []string{"__meta_kubernetes_pod_phase"}, "regex": "(Failed|Succeeded)", "action": "drop"})
	}
	c["relabel_configs"] = append(relabel, relabelings(o.relabelings)...)
	if len(o.metricRelabelings) > 0 {
		c["metric_relabel_configs"] = relabelings(o.metricRelabelings)
	}
	if o.path != "" {
		c["metrics_path"] = o.path
	}
	if o.scheme != nil && *o.scheme != "" {
		c["scheme"] = strings.ToLower(string(*o.scheme))
	}
	if len(o.params) > 0 {
		c["params"] = o.params
	}
	c["honor_labels"] = o.honorLabels
	for key, v := range map[string]*bool{"honor_timestamps": o.honorTimestamps, "follow_redirects": o.http.FollowRedirects, "enable_http2": o.http.EnableHTTP2} {
		if v != nil {
			c[key] = *v
		}
	}
	if o.proxyURL != nil && *o.proxyURL != "" {
		c["proxy_url"] = *o.proxyURL
	}
	for key, v := range map[string]*uint64{"sample_limit": o.sampleLimit, "target_limit": o.targetLimit} {
		if v != nil && *v > 0 {
			c[key] = *v
		}
	}
	if err := s.times(c, o); err != nil {
		return err
	}
	if err := s.authentication(c, namespace, o); err != nil {
		return err
	}
	s.limited(c)
	return nil
}

// times sets interval and timeout. A timeout longer than the interval, which
// Prometheus refuses, becomes the interval when only one of them was given.
func (s *session) times(c object, o endpointOptions) error {
	interval := s.c.m.cfg.Interval
	if o.interval != "" {
		d, err := model.ParseDuration(string(o.interval))
		if err != nil {
			return fmt.Errorf("interval: %w", err)
		}
		interval = time.Duration(d)
		c["scrape_interval"] = promDuration(interval)
		c["scrape_timeout"] = promDuration(min(interval, 10*time.Second))
	}
	if o.timeout != "" {
		d, err := model.ParseDuration(string(o.timeout))
		if err != nil {
			return fmt.Errorf("scrapeTimeout: %w", err)
		}
		if time.Duration(d) > interval {
			return fmt.Errorf("scrapeTimeout %s is longer than the interval %s", o.timeout, model.Duration(interval))
		}
		c["scrape_timeout"] = promDuration(time.Duration(d))
	}
	return nil
}

// authentication resolves what an endpoint keeps in Secrets of the monitor's
// namespace.
func (s *session) authentication(c object, namespace string, o endpointOptions) error {
	if b := o.http.BasicAuth; b != nil {
		user, err := s.secret(namespace, &b.Username)
		if err != nil {
			return fmt.Errorf("basicAuth: %w", err)
		}
		password, err := s.secret(namespace, &b.Password)
		if err != nil {
			return fmt.Errorf("basicAuth: %w", err)
		}
		c["basic_auth"] = object{"username": user, "password": password}
	}
	if a := o.http.Authorization; a != nil && a.Credentials != nil {
		v, err := s.secret(namespace, a.Credentials)
		if err != nil {
			return fmt.Errorf("authorization: %w", err)
		}
		kind := a.Type
		if kind == "" {
			kind = "Bearer"
		}
		c["authorization"] = object{"type": kind, "credentials": v}
	}
	//lint:ignore SA1019 deprecated upstream, still written
	if k := o.http.BearerTokenSecret; k != nil && k.Name != "" {
		v, err := s.secret(namespace, k)
		if err != nil {
			return fmt.Errorf("bearerTokenSecret: %w", err)
		}
		c["authorization"] = object{"credentials": v}
	}
	if o.tls == nil {
		return nil
	}
	t := object{}
	if o.tls.ServerName != nil {
		t["server_name"] = *o.tls.ServerName
	}
	if o.tls.InsecureSkipVerify != nil {
		t["insecure_skip_verify"] = *o.tls.InsecureSkipVerify
	}
	for key, ref := range map[string]monitoringv1.SecretOrConfigMap{"ca": o.tls.CA, "cert": o.tls.Cert} {
		v, err := s.secretOrConfigMap(namespace, ref)
		if err != nil {
			return fmt.Errorf("tlsConfig.%s: %w", key, err)
		}
		if v != "" {
			t[key] = v
		}
	}
	if o.tls.KeySecret != nil {
		v, err := s.secret(namespace, o.tls.KeySecret)
		if err != nil {
			return fmt.Errorf("tlsConfig.keySecret: %w", err)
		}
		t["key"] = v
	}
	c["tls_config"] = t
	return nil
}

func (s *session) secret(namespace string, ref *corev1.SecretKeySelector) (string, error) {
	if ref.Name == "" {
		return "", nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), secretTimeout)
	defer cancel()
	secret, err := s.client.CoreV1().Secrets(namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	v, ok := secret.Data[ref.Key]
	if !ok {
		return "", fmt.Errorf("Secret %s/%s has no key %q", namespace, ref.Name, ref.Key)
	}
	return string(v), nil
}

func (s *session) secretOrConfigMap(namespace string, ref monitoringv1.SecretOrConfigMap) (string, error) {
	switch {
	case ref.Secret != nil:
		return s.secret(namespace, ref.Secret)
	case ref.ConfigMap != nil:
		ctx, cancel := context.WithTimeout(context.Background(), secretTimeout)
		defer cancel()
		cm, err := s.client.CoreV1().ConfigMaps(namespace).Get(ctx, ref.ConfigMap.Name, metav1.GetOptions{})
		if err != nil {
			return "", err
		}
		v, ok := cm.Data[ref.ConfigMap.Key]
		if !ok {
			return "", fmt.Errorf("ConfigMap %s/%s has no key %q", namespace, ref.ConfigMap.Name, ref.ConfigMap.Key)
		}
		return v, nil
	}
	return "", nil
}

// namespaces keeps the namespaces a monitor selects; its own by default.
func namespaces(own string, sel monitoringv1.NamespaceSelector) []object {
	if sel.Any {
		return nil
	}
	names := sel.MatchNames
	if len(names) == 0 {
		names = []string{own}
	}
	return []object{keepLabel("__meta_kubernetes_namespace", alternatives(names))}
}

// selector keeps the objects that a label selector selects.
func selector(kind string, sel metav1.LabelSelector) ([]object, error) {
	var out []object
	value := func(l string) string { return "__meta_kubernetes_" + kind + "_label_" + labelName(l) }
	present := func(l string) string { return "__meta_kubernetes_" + kind + "_labelpresent_" + labelName(l) }
	both := func(l, regex, action string) object {
		return object{"source_labels": []string{value(l), present(l)}, "regex": regex, "action": action}
	}
	for _, l := range sortedKeys(sel.MatchLabels) {
		out = append(out, both(l, regexp.QuoteMeta(sel.MatchLabels[l])+";true", "keep"))
	}
	for _, e := range sel.MatchExpressions {
		switch e.Operator {
		case metav1.LabelSelectorOpIn:
			out = append(out, both(e.Key, "("+alternatives(e.Values)+");true", "keep"))
		case metav1.LabelSelectorOpNotIn:
			out = append(out, both(e.Key, "("+alternatives(e.Values)+");true", "drop"))
		case metav1.LabelSelectorOpExists:
			out = append(out, keepLabel(present(e.Key), "true"))
		case metav1.LabelSelectorOpDoesNotExist:
			out = append(out, object{"source_labels": []string{present(e.Key)}, "regex": "true", "action": "drop"})
		default:
			return nil, fmt.Errorf("operator %q is not one of In, NotIn, Exists, DoesNotExist", e.Operator)
		}
	}
	return out, nil
}

func alternatives(values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = regexp.QuoteMeta(v)
	}
	return strings.Join(quoted, "|")
}

func endpointLabel(port, targetPort string) []object {
	if port == "" {
		port = targetPort
	}
	if port == "" {
		return nil
	}
	return []object{{"target_label": "endpoint", "replacement": port, "action": "replace"}}
}

// relabelings passes user relabelling on.
func relabelings(list []monitoringv1.RelabelConfig) []object {
	var out []object
	for _, r := range list {
		o := object{}
		if len(r.SourceLabels) > 0 {
			o["source_labels"] = r.SourceLabels
		}
		if r.Separator != nil {
			o["separator"] = *r.Separator
		}
		if r.TargetLabel != "" {
			o["target_label"] = r.TargetLabel
		}
		if r.Regex != "" {
			o["regex"] = r.Regex
		}
		if r.Modulus != 0 {
			o["modulus"] = r.Modulus
		}
		if r.Replacement != nil {
			o["replacement"] = *r.Replacement
		}
		if r.Action != "" {
			o["action"] = strings.ToLower(r.Action)
		}
		out = append(out, o)
	}
	return out
}
