// Package containerd is the executor that runs jobs in containers, straight on
// containerd.
//
// It owns the containerd namespace of the jobs, one network segment per job
// (bridge, network namespaces, addresses), the nftables table that fences those
// segments, and the pulling of job images. It receives environment requests
// from the runner and emits processes, their output and their exit. All that it
// makes carries the instance's name, so that Recover finds what a killed
// process left.
//
// It must not import another stage; images are built elsewhere and reach it
// through containerd or a registry only.
package containerd
