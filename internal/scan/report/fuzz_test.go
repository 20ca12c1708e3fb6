package report

import (
	"bytes"
	"testing"
)

// FuzzIgnores: no entry is taken without a reason and a date, in neither form.
func FuzzIgnores(f *testing.F) {
	f.Add([]byte("vulnerabilities:\n  - {id: CVE-1, statement: why, expired_at: 2027-01-01, purls: [pkg:deb/debian/a@1]}\n"))
	f.Add([]byte("secrets: [{id: [], paths: {}}]"))
	f.Add([]byte("# why\nCVE-1 exp:2027-01-01\nCVE-2\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		list, err := ParseIgnores("i.yaml", raw)
		if err != nil && list != nil {
			t.Error("entries with an error")
		}
		for _, one := range list {
			// The first day of year 1 is a date, if one long over.
			if one.ID == "" || one.Statement == "" || one.ExpiredAt.IsZero() && !bytes.Contains(raw, []byte("0001-01-01")) {
				t.Errorf("an entry without reason or date: %+v", one)
			}
		}
		_ = CheckPlainIgnores(".trivyignore", raw)
		Gate{Threshold: High, Ignores: list}.Judge(sample, now)
	})
}
