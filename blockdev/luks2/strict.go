package luks2

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// maxDepth bounds the nesting of the JSON area; LUKS2 needs five levels.
const maxDepth = 16

// parseStrict parses text as one JSON object whose strings are printable
// ASCII, without duplicate keys and without a byte before or after it. Objects become map[string]any,
// arrays []any, strings string, numbers json.Number.
//
// encoding/json alone would let duplicate keys pass (json-c takes the last one, others
// the first), match field names in any case, and replace broken UTF-8.
func parseStrict(text []byte) (map[string]any, error) {
	if len(text) == 0 || text[0] != '{' || text[len(text)-1] != '}' {
		return nil, errors.New("not one JSON object")
	}
	if !json.Valid(text) {
		return nil, errors.New("not valid JSON")
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	v, err := strictValue(dec, 0)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("text after the JSON object")
	}
	return v.(map[string]any), nil
}

func strictValue(dec *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, errors.New("nested too deep")
	}
	tok, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch t := tok.(type) {
	case json.Delim:
		if t == '[' {
			return strictArray(dec, depth)
		}
		return strictObject(dec, depth)
	case string:
		return t, checkASCII(t)
	default:
		return t, nil
	}
}

func strictArray(dec *json.Decoder, depth int) (any, error) {
	list := []any{}
	for dec.More() {
		v, err := strictValue(dec, depth+1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	_, err := dec.Token()
	return list, err
}

func strictObject(dec *json.Decoder, depth int) (any, error) {
	m := map[string]any{}
	for dec.More() {
		k, err := dec.Token()
		if err != nil {
			return nil, err
		}
		key := k.(string)
		if err := checkASCII(key); err != nil {
			return nil, err
		}
		if _, ok := m[key]; ok {
			return nil, fmt.Errorf("duplicate key %q", key)
		}
		if m[key], err = strictValue(dec, depth+1); err != nil {
			return nil, err
		}
	}
	_, err := dec.Token()
	return m, err
}

// checkASCII refuses what a C string or another JSON library would see differently.
func checkASCII(s string) error {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return errors.New("string with a character that is not printable ASCII")
		}
	}
	return nil
}

// marshalPlain is json.Marshal without the escapes for HTML.
func marshalPlain(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

// picker takes the fields of one object by name, exactly, and remembers the
// first thing that was wrong. done refuses the fields that nobody took.
type picker struct {
	err  *error
	path string
	m    map[string]any
}

func (p picker) fail(format string, args ...any) {
	if *p.err == nil {
		*p.err = fmt.Errorf("%w: "+format, append([]any{ErrUnsupported}, args...)...)
	}
}

func (p picker) take(name string) any {
	v, ok := p.m[name]
	if !ok {
		p.fail("%s%s is missing", p.path, name)
	}
	delete(p.m, name)
	return v
}

func (p picker) has(name string) bool { _, ok := p.m[name]; return ok }

func (p picker) object(name string) picker {
	m, ok := p.take(name).(map[string]any)
	if !ok {
		p.fail("%s%s is not an object", p.path, name)
	}
	return picker{p.err, p.path + name + ".", m}
}

func (p picker) text(name string) string {
	s, ok := p.take(name).(string)
	if !ok {
		p.fail("%s%s is not a string", p.path, name)
	}
	return s
}

// texts takes an array of strings without repetition.
func (p picker) texts(name string) []string {
	list, ok := p.take(name).([]any)
	if !ok {
		p.fail("%s%s is not an array", p.path, name)
	}
	var out []string
	for _, v := range list {
		s, ok := v.(string)
		if !ok {
			p.fail("%s%s holds something other than strings", p.path, name)
			return nil
		}
		out = append(out, s)
	}
	return out
}

// want takes a string that can only have one value.
func (p picker) want(name, value string) {
	if s := p.text(name); s != value {
		p.fail("%s%s is %q, want %q", p.path, name, s, value)
	}
}

// decimal takes a number written as LUKS2 writes 64-bit ones: a decimal string.
func (p picker) decimal(name string) uint64 {
	s := p.text(name)
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || strconv.FormatUint(n, 10) != s {
		p.fail("%s%s is not a decimal number", p.path, name)
	}
	return n
}

// number takes a JSON number that is a small whole one.
func (p picker) number(name string) int {
	v, _ := p.take(name).(json.Number)
	n, err := strconv.Atoi(string(v))
	if err != nil {
		p.fail("%s%s is not a whole number", p.path, name)
	}
	return n
}

func (p picker) done() {
	for name := range p.m {
		p.fail("%s%s is unknown", p.path, name)
	}
}
