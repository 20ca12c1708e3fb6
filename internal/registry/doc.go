// Package registry is the platform's container registry: the distribution
// engine as an http.Handler under /v2/, the token service at /jwt/auth, the
// catalogue of images per project, clean-up, and a pull-through cache for
// public registries.
//
// It receives pushes and pulls over the OCI distribution protocol and
// administration over the REST API v4; it emits delivery.ImagePushed through
// its Index, in the transaction that records the image. Accounts, projects,
// what the cluster runs and where records are kept come through the small
// interfaces of this package.
//
// It must not import store, config, web or another stage.
package registry
