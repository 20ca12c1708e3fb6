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
	trackStaleness                 *bool
	relabelings, metricRelabelings []monitoringv1.RelabelConfig
	http                           monitoringv1.HTTPConfigWithoutTLS
	tls                            *monitoringv1.SafeTLSConfig
	files                          string // names of files, which are refused
	proxy                          monitoringv1.ProxyConfig
	limits                         monitorLimits
}

// monitorLimits is what a whole monitor says of the scrapes of its endpoints.
type monitorLimits struct {
	samples, targets, labels, names, values, dropped *uint64
	body                                             *monitoringv1.ByteSize
	protocols                                        []monitoringv1.ScrapeProtocol
	fallback                                         *monitoringv1.ScrapeProtocol
}

// apply sets the limits that are given.
func (l monitorLimits) apply(c object) {
	for key, v := range map[string]*uint64{
		"sample_limit": l.samples, "target_limit": l.targets, "label_limit": l.labels,
		"label_name_length_limit": l.names, "label_value_length_limit": l.values, "keep_dropped_targets": l.dropped,
	} {
		if v != nil && *v > 0 {
			c[key] = *v
		}
	}
	if l.body != nil && *l.body != "" {
		c["body_size_limit"] = string(*l.body)
	}
	if len(l.protocols) > 0 {
		c["scrape_protocols"] = l.protocols
	}
	if l.fallback != nil && *l.fallback != "" {
		c["fallback_scrape_protocol"] = *l.fallback
	}
}

// endpoint completes a scrape configuration, whose relabel_configs hold the
// selection and the standard labels already.
func (s *session) endpoint(c object, namespace string, o endpointOptions) error {
	if o.files != "" {
		return errors.New("files of the server may not be read by a monitor; use a Secret")
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
	for key, v := range map[string]*bool{"honor_timestamps": o.honorTimestamps, "track_timestamps_staleness": o.trackStaleness, "follow_redirects": o.http.FollowRedirects, "enable_http2": o.http.EnableHTTP2} {
		if v != nil {
			c[key] = *v
		}
	}
	if o.proxy.ProxyURL != nil && *o.proxy.ProxyURL != "" {
		c["proxy_url"] = *o.proxy.ProxyURL
		if o.proxy.NoProxy != nil {
			c["no_proxy"] = *o.proxy.NoProxy
		}
	}
	o.limits.apply(c)
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
	if a := o.http.OAuth2; a != nil {
		v, err := s.oauth2(namespace, a)
		if err != nil {
			return fmt.Errorf("oauth2.%w", err)
		}
		c["oauth2"] = v
	}
	if o.tls == nil {
		return nil
	}
	t, err := s.tls(namespace, o.tls)
	if err != nil {
		return fmt.Errorf("tlsConfig.%w", err)
	}
	c["tls_config"] = t
	return nil
}

// oauth2 is the client's side of a token endpoint.
func (s *session) oauth2(namespace string, a *monitoringv1.OAuth2) (object, error) {
	id, err := s.secretOrConfigMap(namespace, a.ClientID)
	if err != nil {
		return nil, fmt.Errorf("clientId: %w", err)
	}
	secret, err := s.secret(namespace, &a.ClientSecret)
	if err != nil {
		return nil, fmt.Errorf("clientSecret: %w", err)
	}
	out := object{"client_id": id, "client_secret": secret, "token_url": string(a.TokenURL)}
	if len(a.Scopes) > 0 {
		out["scopes"] = a.Scopes
	}
	if len(a.EndpointParams) > 0 {
		out["endpoint_params"] = a.EndpointParams
	}
	if a.TLSConfig != nil {
		if out["tls_config"], err = s.tls(namespace, a.TLSConfig); err != nil {
			return nil, fmt.Errorf("tlsConfig.%w", err)
		}
	}
	return out, nil
}

func (s *session) tls(namespace string, c *monitoringv1.SafeTLSConfig) (object, error) {
	t := object{}
	if c.ServerName != nil {
		t["server_name"] = *c.ServerName
	}
	if c.InsecureSkipVerify != nil {
		t["insecure_skip_verify"] = *c.InsecureSkipVerify
	}
	for key, v := range map[string]*monitoringv1.TLSVersion{"min_version": c.MinVersion, "max_version": c.MaxVersion} {
		if v != nil && *v != "" {
			t[key] = *v
		}
	}
	for key, ref := range map[string]monitoringv1.SecretOrConfigMap{"ca": c.CA, "cert": c.Cert} {
		v, err := s.secretOrConfigMap(namespace, ref)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		if v != "" {
			t[key] = v
		}
	}
	if c.KeySecret != nil {
		v, err := s.secret(namespace, c.KeySecret)
		if err != nil {
			return nil, fmt.Errorf("keySecret: %w", err)
		}
		t["key"] = v
	}
	return t, nil
}

func (s *session) secret(namespace string, ref *corev1.SecretKeySelector) (string, error) {
	if ref.Name == "" {
		return "", nil
	}
	s.secrets.Store(true)
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
