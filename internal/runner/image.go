package runner

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// image is the job's image with variables expanded.
func (j *job) image() delivery.JobImage {
	if j.spec.Image == nil {
		return delivery.JobImage{}
	}
	return j.expandImage(*j.spec.Image)
}

func (j *job) services() []delivery.JobImage {
	services := make([]delivery.JobImage, 0, len(j.spec.Services))
	for _, service := range j.spec.Services {
		services = append(services, j.expandImage(service))
	}
	return services
}

func (j *job) expandImage(image delivery.JobImage) delivery.JobImage {
	image.Name = j.variables.Expand(image.Name)
	image.Alias = j.variables.Expand(image.Alias)
	return image
}

// Variables by which a job asks for other limits than the default; the names
// are those of the official Kubernetes executor. The administrator's maximum
// caps them.
const (
	memoryVariable = "KUBERNETES_MEMORY_LIMIT"
	cpuVariable    = "KUBERNETES_CPU_LIMIT"
)

func (j *job) limits() Limits {
	config := j.runner.config
	limits := config.Limits
	if text := j.variables.Get(memoryVariable); text != "" {
		if bytes, err := ParseQuantity(text); err != nil {
			j.log.Warn("Ignoring malformed %s: %v", memoryVariable, err)
		} else {
			limits.Memory = capped(bytes, config.MaxLimits.Memory)
		}
	}
	if text := j.variables.Get(cpuVariable); text != "" {
		cores, err := strconv.ParseFloat(strings.TrimSuffix(text, "m"), 64)
		if err != nil || cores <= 0 {
			j.log.Warn("Ignoring malformed %s: %q", cpuVariable, text)
			return limits
		}
		if strings.HasSuffix(text, "m") {
			cores /= 1000
		}
		if limits.CPU = cores; config.MaxLimits.CPU > 0 {
			limits.CPU = min(cores, config.MaxLimits.CPU)
		}
	}
	return limits
}

func capped(value, most int64) int64 {
	if most > 0 {
		return min(value, most)
	}
	return value
}

// memory is what the job takes of the budget: its own limit and one for each
// service.
func (j *job) memory(r EnvironmentRequest) int64 {
	return r.Limits.Memory + int64(len(r.Services))*j.runner.config.ServiceMemory
}

// ParseQuantity reads a Kubernetes quantity of bytes: 512Mi, 2G, 1000000. Its
// error says what was given.
func ParseQuantity(text string) (int64, error) {
	units := []struct {
		suffix string
		factor float64
	}{{"Ki", 1 << 10}, {"Mi", 1 << 20}, {"Gi", 1 << 30}, {"Ti", 1 << 40}, {"k", 1e3}, {"M", 1e6}, {"G", 1e9}, {"T", 1e12}, {"", 1}}
	for _, unit := range units {
		number, found := strings.CutSuffix(text, unit.suffix)
		if !found {
			continue
		}
		value, err := strconv.ParseFloat(number, 64)
		if err != nil || value <= 0 || value*unit.factor > 1<<60 {
			return 0, fmt.Errorf("%q is no quantity of bytes such as 512Mi or 2G", text)
		}
		return int64(value * unit.factor), nil
	}
	return 0, fmt.Errorf("%q is no quantity of bytes such as 512Mi or 2G", text)
}

// credentials gathers what the job may use to pull: DOCKER_AUTH_CONFIG first,
// then the coordinator's.
func credentials(spec *delivery.JobSpec, variables Variables, log *Log) []RegistryCredential {
	var list []RegistryCredential
	if text := variables.Value("DOCKER_AUTH_CONFIG"); text != "" {
		given, err := parseDockerConfig(text)
		if err != nil {
			log.Warn("Ignoring DOCKER_AUTH_CONFIG: %v", err)
		}
		list = given
	}
	for _, one := range spec.Credentials {
		if one.Type == "registry" {
			list = append(list, RegistryCredential{Host: registryHost(one.URL), Username: one.Username, Password: one.Password, Source: "job payload (GitLab Registry)"})
		}
	}
	return list
}

// parseDockerConfig reads the "auths" of a docker configuration file.
func parseDockerConfig(text string) ([]RegistryCredential, error) {
	var config struct {
		Auths map[string]struct {
			Auth     string `json:"auth"`
			Username string `json:"username"`
			Password string `json:"password"`
		} `json:"auths"`
	}
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		return nil, errors.New("it is not the JSON of a docker configuration")
	}
	var list []RegistryCredential
	for _, host := range slices.Sorted(maps.Keys(config.Auths)) { // of two for one host, always the same
		auth := config.Auths[host]
		user, password := auth.Username, auth.Password
		if auth.Auth != "" {
			raw, err := base64.StdEncoding.DecodeString(auth.Auth)
			if err != nil {
				return nil, fmt.Errorf("the auth of %s is not base64", host)
			}
			user, password, _ = strings.Cut(string(raw), ":")
		}
		list = append(list, RegistryCredential{Host: registryHost(host), Username: user, Password: password, Source: "$DOCKER_AUTH_CONFIG"})
	}
	return list, nil
}

// registryHost is the host[:port] by which image names call a registry.
func registryHost(address string) string {
	host := address
	if parsed, err := url.Parse(address); err == nil && parsed.Host != "" {
		host = parsed.Host
	} else {
		host, _, _ = strings.Cut(host, "/")
	}
	switch host {
	case "index.docker.io", "registry-1.docker.io":
		return "docker.io"
	}
	return host
}

func isFullDisk(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) ||
		err != nil && strings.Contains(err.Error(), syscall.ENOSPC.Error())
}
