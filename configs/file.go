package configs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// file reads a YAML file: option names without dashes at the top level, TLS options in their two
// sections. An unknown key is an error, because a typing mistake in a file must not pass. An empty
// value counts as not set.
func (p *parser) file(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return refusef("%v", err)
	}
	root, err := document(data)
	if err != nil {
		return refusef("error converting YAML to JSON: %v", err)
	}
	if root == nil {
		return nil
	}
	if root.Kind != yaml.MappingNode {
		return refusef("%s line %d: the file must map option names to values", path, root.Line)
	}
	byPath := map[string]*option{}
	for _, o := range options {
		if !o.noFile {
			byPath[o.path()] = o
		}
	}
	return p.mapping(path, byPath, "", root)
}

// document returns the root of the only document in data, nil if there is none.
func document(data []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if err := dec.Decode(&second); err == nil {
		return nil, fmt.Errorf("line %d: a second document", second.Line)
	} else if !errors.Is(err, io.EOF) {
		return nil, err
	}
	if isNull(doc.Content[0]) {
		return nil, nil
	}
	return doc.Content[0], nil
}

// mapping reads the keys of the top level or of one section.
func (p *parser) mapping(path string, byPath map[string]*option, section string, node *yaml.Node) error {
	seen := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], resolveAlias(node.Content[i+1])
		label := fmt.Sprintf("%s line %d", path, key.Line)
		name := key.Value
		if section != "" {
			name = section + "." + name
		}
		if first, twice := seen[name]; twice {
			return refusef("%s: key %q was given on line %d already", label, key.Value, first)
		}
		seen[name] = key.Line

		if section == "" && (name == clientSection || name == peerSection) {
			if isNull(value) {
				continue
			}
			if value.Kind != yaml.MappingNode {
				return refusef("%s: %s must be a mapping", label, name)
			}
			if err := p.mapping(path, byPath, name, value); err != nil {
				return err
			}
			continue
		}
		o := byPath[name]
		if o == nil {
			return refusef("%s: unknown key %q%s", label, key.Value, elsewhere(key.Value, byPath))
		}
		if isNull(value) {
			continue
		}
		text, err := scalar(o, value)
		if err != nil {
			return refusef("%s: %v", label, err)
		}
		if o.name == "force-new-cluster" {
			if text != "false" {
				return refusef("%s: force-new-cluster must not be in a file, where it would outlive its purpose; use the flag for one start", label)
			}
			continue
		}
		if before := p.given[o.name]; before.layer != 0 {
			p.notices = append(p.notices, warnf("%s: %s is overridden by %v", label, o.path(), before))
			continue
		}
		if err := p.set(o, text, source{fromFile, label}); err != nil {
			return err
		}
	}
	return nil
}

// elsewhere says where a key that is known, but misplaced, belongs.
func elsewhere(key string, byPath map[string]*option) string {
	for _, section := range []string{clientSection, peerSection} {
		name := key
		if section == peerSection {
			name = strings.TrimPrefix(key, "peer-")
		}
		if o := byPath[section+"."+name]; o != nil && o.name == key {
			return fmt.Sprintf("; it belongs under %s, as %s", section, name)
		}
	}
	if o := options[key]; o != nil {
		return ", which is not for files"
	}
	return ""
}

// scalar returns a value in the form of the command line.
func scalar(o *option, node *yaml.Node) (string, error) {
	wrong := func(what string) error {
		return fmt.Errorf("cannot unmarshal %s into Go struct field configYAML.%s of type %s", what, o.path(), o.kind)
	}
	if node.Kind == yaml.SequenceNode && (o.kind == kindList || o.ignored != "") {
		var list []string
		for _, item := range node.Content {
			if item = resolveAlias(item); item.Kind != yaml.ScalarNode {
				return "", wrong("array")
			}
			list = append(list, item.Value)
		}
		return strings.Join(list, ","), nil
	}
	switch node.Kind {
	case yaml.SequenceNode:
		return "", wrong("array")
	case yaml.MappingNode:
		return "", wrong("object")
	}
	switch o.kind {
	case kindUint:
		if node.Tag != "!!int" {
			return "", wrong(jsonType(node))
		}
		if strings.HasPrefix(node.Value, "-") {
			return "", wrong("number " + node.Value)
		}
		return strings.TrimPrefix(node.Value, "+"), nil
	case kindBool:
		// YAML 1.1, which etcd reads, has more words for them.
		switch word := strings.ToLower(node.Value); {
		case node.Tag == "!!bool":
			return word, nil
		case slices.Contains([]string{"yes", "on", "y"}, word):
			return "true", nil
		case slices.Contains([]string{"no", "off", "n"}, word):
			return "false", nil
		}
		return "", wrong(jsonType(node))
	}
	return node.Value, nil
}

// jsonType names the type of a scalar as etcd, which goes through JSON, would.
func jsonType(node *yaml.Node) string {
	switch node.Tag {
	case "!!int", "!!float":
		return "number"
	case "!!bool":
		return "bool"
	}
	return "string"
}

func isNull(node *yaml.Node) bool { return node.Kind == yaml.ScalarNode && node.Tag == "!!null" }

func resolveAlias(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}
