// Package gitlabci turns a .gitlab-ci.yml into a pipeline plan.
//
// It owns the language: YAML with positions, includes, inputs, extends, references, defaults,
// validation of every keyword, the rules:if expressions, variable expansion and the decision which
// jobs a given event runs. It receives the text of the files through Sources and the facts of the
// event through Context; it emits a Config (the merged, validated file), a Pipeline (what would
// run) and Diagnostics (every problem at once, each with file, line and column).
//
// It does no input or output of its own, keeps no state between calls, and imports the standard
// library and the YAML node parser only. It must not import any stage, the store or the web.
package gitlabci
