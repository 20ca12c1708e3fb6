// Package build builds, stores and moves container images for jobs, with
// BuildKit and without a docker daemon.
//
// It owns the buildkitd process (started when a build needs it, stopped when
// idle), its configuration and cache budget, and the endpoint of each job: the
// unix socket at which the job's `docker` and `trivy` commands arrive. It
// receives calls in docker's command language and emits images in the
// registry, with the rights of the job that called and no others: names,
// credentials and running builds of one job are unknown to every other.
//
// It must not import another stage; `docker run` and `trivy` are carried out by
// what the constructor is given.
package build
