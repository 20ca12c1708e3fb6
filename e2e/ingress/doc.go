// Package ingress holds the end-to-end tests of traffic, which need root and the
// build tag e2e; this file is what there is of it without the tag.
package ingress
