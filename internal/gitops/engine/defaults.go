package engine

import (
	_ "embed"

	"github.com/slipwayhq/slipway/internal/gitops"
)

// knownHosts are the host keys of public git servers that upstream's
// installation brings.
//
//go:embed known_hosts
var knownHosts string

// configDefaults are the platform's values in argocd-cm; exclusions and
// ignored updates are upstream's own defaults, reduced to what this platform's
// clusters contain.
func configDefaults(externalURL string) map[string]string {
	m := map[string]string{
		"accounts." + platformAccount:                       "apiKey",
		"application.resourceTrackingMethod":                "annotation",
		"admin.enabled":                                     "true",
		"statusbadge.enabled":                               "false",
		"users.anonymous.enabled":                           "false",
		"resource.exclusions":                               exclusions,
		"resource.customizations.ignoreResourceUpdates.all": "jsonPointers:\n  - /status\n",
		"resource.customizations.ignoreResourceUpdates.argoproj.io_Application": `jqPathExpressions:
  - '.metadata.annotations."notified.notifications.argoproj.io"'
  - '.metadata.annotations."argocd.argoproj.io/refresh"'
  - '.metadata.annotations."argocd.argoproj.io/hydrate"'
  - '.operation'
`,
		"resource.customizations.ignoreResourceUpdates.argoproj.io_Rollout": `jqPathExpressions:
  - '.metadata.annotations."notified.notifications.argoproj.io"'
`,
		"resource.customizations.ignoreResourceUpdates.apps_ReplicaSet": `jqPathExpressions:
  - '.metadata.annotations."deployment.kubernetes.io/desired-replicas"'
  - '.metadata.annotations."deployment.kubernetes.io/max-replicas"'
  - '.metadata.annotations."rollout.argoproj.io/desired-replicas"'
`,
	}
	if externalURL != "" {
		m["url"] = externalURL
	}
	return m
}

// exclusions are never declared in git nor worth a place in a resource tree;
// each would cost a watch and its objects' memory.
const exclusions = `- apiGroups: ['', discovery.k8s.io]
  kinds: [Endpoints, EndpointSlice]
- apiGroups: [coordination.k8s.io]
  kinds: [Lease]
- apiGroups: [authentication.k8s.io, authorization.k8s.io]
  kinds: [SelfSubjectReview, TokenReview, LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview]
- apiGroups: [certificates.k8s.io]
  kinds: [CertificateSigningRequest]
- apiGroups: [metrics.k8s.io]
  kinds: ['*']
- apiGroups: [apps]
  kinds: [ControllerRevision]
- apiGroups: [networking.k8s.io]
  kinds: [IPAddress, ServiceCIDR]
- apiGroups: [storage.k8s.io]
  kinds: [CSINode, CSIDriver, CSIStorageCapacity, VolumeAttachment, VolumeAttributesClass]
- apiGroups: [flowcontrol.apiserver.k8s.io]
  kinds: [FlowSchema, PriorityLevelConfiguration]
- apiGroups: [resource.k8s.io]
  kinds: ['*']
- apiGroups: ['']
  kinds: [Node, ComponentStatus, Binding]
`

// rbacDefaults give the platform's own account and its administrators all
// rights until the platform has written its own key of argocd-rbac-cm, which
// says the same (gitops.Policy) and stays when users write their own policy.csv.
func rbacDefaults() map[string]string {
	return map[string]string{"policy.csv": gitops.PolicyBase, "scopes": "[groups]"}
}
