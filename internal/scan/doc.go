// Package scan runs Trivy on images, file systems, configuration and for
// secrets, one scan at a time, and keeps what it found.
//
// It owns the scans, their queue and the vulnerability database in its folder;
// it receives images from the registry through Images and directories from
// jobs; it emits delivery.ImageScanned through its Store, in the transaction
// that records the result. Trivy itself is the upstream program, started as a
// child for every scan.
//
// It must not import store, config, web or another stage, and it must not link
// Trivy.
package scan
