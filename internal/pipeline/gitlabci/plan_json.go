package gitlabci

import (
	"bytes"
	"encoding/json"
	"fmt"
)

type rawVariable struct {
	Value  string `json:"value"`
	Expand bool   `json:"expand"`
}

// MarshalJSON encodes the list as an object in order.
func (vs Variables) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, v := range Merge(vs) {
		if i > 0 {
			b.WriteByte(',')
		}
		key, err := json.Marshal(v.Key)
		if err != nil {
			return nil, err
		}
		var value []byte
		if v.Raw {
			value, err = json.Marshal(rawVariable{Value: v.Value})
		} else {
			value, err = json.Marshal(v.Value)
		}
		if err != nil {
			return nil, err
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// UnmarshalJSON reads what MarshalJSON writes, keeping the order.
func (vs *Variables) UnmarshalJSON(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	tok, err := dec.Token()
	if err != nil {
		return err
	}
	if tok == nil {
		*vs = nil
		return nil
	}
	if tok != json.Delim('{') {
		return fmt.Errorf("variables must be an object, not %v", tok)
	}
	out := Variables{}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return err
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return err
		}
		v := Variable{Key: key.(string)}
		if len(raw) > 0 && raw[0] == '{' {
			r := rawVariable{Expand: true}
			if err := json.Unmarshal(raw, &r); err != nil {
				return err
			}
			v.Value, v.Raw = r.Value, !r.Expand
		} else if err := json.Unmarshal(raw, &v.Value); err != nil {
			return err
		}
		out = append(out, v)
	}
	*vs = out
	return nil
}

type needObject struct {
	Job       string `json:"job"`
	Artifacts bool   `json:"artifacts"`
	Optional  bool   `json:"optional"`
}

// MarshalJSON writes the bare name when the entry says nothing else, as YAML's short form.
func (n Need) MarshalJSON() ([]byte, error) {
	if n.Artifacts && !n.Optional {
		return json.Marshal(n.Job)
	}
	return json.Marshal(needObject(n))
}

// UnmarshalJSON reads both forms.
func (n *Need) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		*n = Need{Artifacts: true}
		return json.Unmarshal(data, &n.Job)
	}
	o := needObject{Artifacts: true}
	if err := json.Unmarshal(data, &o); err != nil {
		return err
	}
	*n = Need(o)
	return nil
}

type imageObject struct {
	Name       string             `json:"name"`
	Alias      string             `json:"alias,omitempty"`
	Entrypoint *[]string          `json:"entrypoint,omitempty"`
	Command    *[]string          `json:"command,omitempty"`
	Variables  Variables          `json:"variables,omitempty"`
	PullPolicy []string           `json:"pull_policy,omitempty"`
	Docker     *DockerOptions     `json:"docker,omitempty"`
	Kubernetes *KubernetesOptions `json:"kubernetes,omitempty"`
}

func (o imageObject) plain() bool {
	return o.Alias == "" && o.Entrypoint == nil && o.Command == nil && len(o.Variables) == 0 &&
		len(o.PullPolicy) == 0 && o.Docker == nil && o.Kubernetes == nil
}

func (o imageObject) marshal() ([]byte, error) {
	if o.plain() {
		return json.Marshal(o.Name)
	}
	return json.Marshal(o)
}

func (o *imageObject) unmarshal(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		return json.Unmarshal(data, &o.Name)
	}
	return json.Unmarshal(data, o)
}

func (i Image) object() imageObject {
	o := imageObject{Name: i.Name, PullPolicy: i.PullPolicy, Docker: i.Docker, Kubernetes: i.Kubernetes}
	if i.Entrypoint != nil {
		o.Entrypoint = &i.Entrypoint
	}
	return o
}

func (o imageObject) image() Image {
	i := Image{Name: o.Name, PullPolicy: o.PullPolicy, Docker: o.Docker, Kubernetes: o.Kubernetes}
	if o.Entrypoint != nil {
		i.Entrypoint = *o.Entrypoint
	}
	return i
}

// MarshalJSON writes the bare name when there is nothing else.
func (i Image) MarshalJSON() ([]byte, error) { return i.object().marshal() }

// UnmarshalJSON reads both forms.
func (i *Image) UnmarshalJSON(data []byte) error {
	var o imageObject
	if err := o.unmarshal(data); err != nil {
		return err
	}
	*i = o.image()
	return nil
}

// MarshalJSON writes the bare name when there is nothing else.
func (s Service) MarshalJSON() ([]byte, error) {
	o := s.Image.object()
	o.Alias, o.Variables = s.Alias, s.Variables
	if s.Command != nil {
		o.Command = &s.Command
	}
	return o.marshal()
}

// UnmarshalJSON reads both forms.
func (s *Service) UnmarshalJSON(data []byte) error {
	var o imageObject
	if err := o.unmarshal(data); err != nil {
		return err
	}
	*s = Service{Image: o.image(), Alias: o.Alias, Variables: o.Variables}
	if o.Command != nil {
		s.Command = *o.Command
	}
	return nil
}
