// Package output prints what commands found: as a table for people or as JSON
// for programs.
//
// It receives rows and emits text. It must import no stage.
package output

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// JSON writes v indented, with a line feed; <, > and & stay as they are, since
// no browser reads it.
func JSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// List writes a list as JSON, an empty one as [] and not as null, or as a table
// with a row of cells for each element.
func List[T any](w io.Writer, asJSON bool, list []T, heading []string, cells func(T) []string) error {
	if asJSON {
		if list == nil {
			list = []T{}
		}
		return JSON(w, list)
	}
	rows := make([][]string, len(list))
	for i, v := range list {
		rows[i] = cells(v)
	}
	return Table(w, heading, rows)
}

// Table writes a heading and rows in columns.
func Table(w io.Writer, heading []string, rows [][]string) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	if _, err := fmt.Fprintln(tw, strings.Join(heading, "\t")); err != nil {
		return err
	}
	for _, r := range rows {
		if _, err := fmt.Fprintln(tw, strings.Join(r, "\t")); err != nil {
			return err
		}
	}
	return tw.Flush()
}
