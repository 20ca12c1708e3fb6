package gitlabci

import (
	"bytes"
	"strings"

	yaml "go.yaml.in/yaml/v3"
)

// YAML returns the merged configuration as one file without includes, references, extends and
// aliases. Reading it again gives the same Config.
func (c *Config) YAML() ([]byte, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(yamlNode(c.root)); err != nil {
		return nil, err
	}
	if err := enc.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func yamlNode(n *node) *yaml.Node {
	switch n.kind {
	case listKind, referenceKind:
		y := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		for _, c := range n.items {
			y.Content = append(y.Content, yamlNode(c))
		}
		if len(n.items) == 0 {
			y.Style = yaml.FlowStyle
		}
		return y
	case mapKind:
		y := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		for _, f := range n.fields {
			y.Content = append(y.Content, yamlString(f.key), yamlNode(f.value))
		}
		if len(n.fields) == 0 {
			y.Style = yaml.FlowStyle
		}
		return y
	case stringKind:
		return yamlString(n.text)
	case nullKind:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}
	case boolKind:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: n.text}
	case intKind:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: n.text}
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!float", Value: n.text}
}

// yamlString quotes what would otherwise be read as something else than a string.
func yamlString(s string) *yaml.Node {
	y := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	var probe node
	probe.kind, probe.text = stringKind, s
	plainScalar(&probe, s)
	switch {
	case probe.kind != stringKind || s == "<<":
		y.Style = yaml.DoubleQuotedStyle
	case strings.Contains(s, "\n") && !strings.HasPrefix(s, " ") && !strings.HasPrefix(s, "\n") && !strings.Contains(s, "\t"):
		y.Style = yaml.LiteralStyle
	}
	return y
}
