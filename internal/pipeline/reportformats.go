package pipeline

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
)

// maxOutput bounds the text kept of one test.
const maxOutput = 64 << 10

type junitReport struct {
	Cases []TestCase `json:"cases"`
}

// parseJUnit reads one or more JUnit documents, one after the other.
func parseJUnit(text []byte) (junitReport, error) {
	report := junitReport{Cases: []TestCase{}}
	dec := xml.NewDecoder(bytes.NewReader(text))
	dec.Strict = false
	roots := 0
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return report, fmt.Errorf("it is not valid XML: %w", err)
		}
		start, ok := tok.(xml.StartElement)
		if !ok {
			continue
		}
		roots++
		if start.Name.Local != "testcase" {
			continue
		}
		var c struct {
			Name      string     `xml:"name,attr"`
			Classname string     `xml:"classname,attr"`
			File      string     `xml:"file,attr"`
			Time      string     `xml:"time,attr"`
			Failures  []junitEnd `xml:"failure"`
			Errors    []junitEnd `xml:"error"`
			Skipped   *junitEnd  `xml:"skipped"`
			Out       string     `xml:"system-out"`
			Err       string     `xml:"system-err"`
		}
		if err := dec.DecodeElement(&c, &start); err != nil {
			return report, fmt.Errorf("a test case is not valid: %w", err)
		}
		t := TestCase{Status: "success", Name: c.Name, Classname: c.Classname, File: c.File}
		if t.ExecutionTime, err = strconv.ParseFloat(strings.ReplaceAll(c.Time, ",", ""), 64); err != nil {
			t.ExecutionTime = 0 // no time is written
		}
		output := c.Out
		switch {
		case len(c.Failures) > 0:
			t.Status, output = "failed", c.Failures[0].text()
		case len(c.Errors) > 0:
			t.Status, output = "error", c.Errors[0].text()
		case c.Skipped != nil:
			t.Status, output = "skipped", c.Skipped.text()
		}
		if t.Status == "failed" || t.Status == "error" {
			t.StackTrace = cut(c.Err)
		}
		t.SystemOutput = cut(output)
		report.Cases = append(report.Cases, t)
	}
	if roots == 0 {
		return report, errors.New("it has no elements")
	}
	return report, nil
}

type junitEnd struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

func (e junitEnd) text() string {
	text := strings.TrimSpace(e.Text)
	if e.Message != "" && !strings.Contains(text, e.Message) {
		return strings.TrimSpace(e.Message + "\n" + text)
	}
	return text
}

func cut(s string) string {
	if len(s) > maxOutput {
		return s[:maxOutput] + "..."
	}
	return s
}

type coverageReport struct {
	Files map[string]FileCoverage `json:"files"`
	Rate  float64                 `json:"rate"` // lines covered, 0 to 1
}

func (r *coverageReport) finish() {
	lines, hit := 0, 0
	for _, f := range r.Files {
		for _, h := range f {
			lines++
			if h > 0 {
				hit++
			}
		}
	}
	if lines > 0 {
		r.Rate = float64(hit) / float64(lines)
	}
}

func (r *coverageReport) hit(file string, line, hits int) {
	if r.Files[file] == nil {
		r.Files[file] = FileCoverage{}
	}
	r.Files[file][line] = max(r.Files[file][line], hits)
}

// parseCobertura reads a Cobertura document.
func parseCobertura(text []byte) (coverageReport, error) {
	report := coverageReport{Files: map[string]FileCoverage{}}
	var doc struct {
		XMLName  xml.Name `xml:"coverage"`
		Packages []struct {
			Classes []struct {
				Filename string `xml:"filename,attr"`
				Lines    []struct {
					Number int `xml:"number,attr"`
					Hits   int `xml:"hits,attr"`
				} `xml:"lines>line"`
			} `xml:"classes>class"`
		} `xml:"packages>package"`
	}
	if err := xml.Unmarshal(text, &doc); err != nil {
		return report, fmt.Errorf("it is not a Cobertura report: %w", err)
	}
	for _, p := range doc.Packages {
		for _, c := range p.Classes {
			for _, l := range c.Lines {
				report.hit(c.Filename, l.Number, l.Hits)
			}
		}
	}
	report.finish()
	return report, nil
}

// parseJaCoCo reads a JaCoCo document.
func parseJaCoCo(text []byte) (coverageReport, error) {
	report := coverageReport{Files: map[string]FileCoverage{}}
	type pack struct {
		Name  string `xml:"name,attr"`
		Files []struct {
			Name  string `xml:"name,attr"`
			Lines []struct {
				Number  int `xml:"nr,attr"`
				Covered int `xml:"ci,attr"`
			} `xml:"line"`
		} `xml:"sourcefile"`
	}
	var doc struct {
		XMLName  xml.Name `xml:"report"`
		Packages []pack   `xml:"package"`
		Groups   []struct {
			Packages []pack `xml:"package"`
		} `xml:"group"`
	}
	if err := xml.Unmarshal(text, &doc); err != nil {
		return report, fmt.Errorf("it is not a JaCoCo report: %w", err)
	}
	for _, g := range doc.Groups {
		doc.Packages = append(doc.Packages, g.Packages...)
	}
	for _, p := range doc.Packages {
		for _, f := range p.Files {
			for _, l := range f.Lines {
				report.hit(path.Join(p.Name, f.Name), l.Number, l.Covered)
			}
		}
	}
	report.finish()
	return report, nil
}

type findingReport struct {
	Findings []Finding `json:"findings"`
}

// parseCodeQuality reads a Code Climate issue list.
func parseCodeQuality(text []byte) (findingReport, error) {
	var issues []struct {
		Description string `json:"description"`
		CheckName   string `json:"check_name"`
		Fingerprint string `json:"fingerprint"`
		Severity    string `json:"severity"`
		Location    struct {
			Path  string `json:"path"`
			Lines struct {
				Begin int `json:"begin"`
			} `json:"lines"`
			Positions struct {
				Begin struct {
					Line int `json:"line"`
				} `json:"begin"`
			} `json:"positions"`
		} `json:"location"`
	}
	report := findingReport{Findings: []Finding{}}
	if err := json.Unmarshal(text, &issues); err != nil {
		return report, fmt.Errorf("it is not a list of code quality issues: %w", err)
	}
	for _, i := range issues {
		line := i.Location.Lines.Begin
		if line == 0 {
			line = i.Location.Positions.Begin.Line
		}
		report.Findings = append(report.Findings, Finding{Severity: strings.ToLower(i.Severity), Name: i.Description, Identifier: i.CheckName,
			File: i.Location.Path, Line: line, Fingerprint: i.Fingerprint})
	}
	return report, nil
}

// parseSARIF reads a SARIF 2.1 log.
func parseSARIF(text []byte) (findingReport, error) {
	type message struct {
		Text string `json:"text"`
	}
	var log struct {
		Runs []struct {
			Tool struct {
				Driver struct {
					Rules []struct {
						ID               string  `json:"id"`
						ShortDescription message `json:"shortDescription"`
						HelpURI          string  `json:"helpUri"`
						Properties       struct {
							SecuritySeverity string `json:"security-severity"`
						} `json:"properties"`
						Default struct {
							Level string `json:"level"`
						} `json:"defaultConfiguration"`
					} `json:"rules"`
				} `json:"driver"`
			} `json:"tool"`
			Results []struct {
				RuleID    string  `json:"ruleId"`
				RuleIndex *int    `json:"ruleIndex"`
				Level     string  `json:"level"`
				Message   message `json:"message"`
				Locations []struct {
					Physical struct {
						Artifact struct {
							URI string `json:"uri"`
						} `json:"artifactLocation"`
						Region struct {
							StartLine int `json:"startLine"`
						} `json:"region"`
					} `json:"physicalLocation"`
				} `json:"locations"`
			} `json:"results"`
		} `json:"runs"`
	}
	report := findingReport{Findings: []Finding{}}
	if err := json.Unmarshal(text, &log); err != nil {
		return report, fmt.Errorf("it is not a SARIF log: %w", err)
	}
	for _, run := range log.Runs {
		rules := run.Tool.Driver.Rules
		for _, r := range run.Results {
			f := Finding{Severity: r.Level, Name: r.Message.Text, Identifier: r.RuleID}
			for i, rule := range rules {
				if rule.ID != r.RuleID && (r.RuleIndex == nil || *r.RuleIndex != i) {
					continue
				}
				f.Link, f.Description = rule.HelpURI, rule.ShortDescription.Text
				setDefault(&f.Identifier, rule.ID)
				setDefault(&f.Severity, rule.Default.Level)
				if score, err := strconv.ParseFloat(rule.Properties.SecuritySeverity, 64); err == nil {
					f.Severity = scoreSeverity(score)
				}
				break
			}
			setDefault(&f.Severity, "warning")
			if len(r.Locations) > 0 {
				f.File, f.Line = r.Locations[0].Physical.Artifact.URI, r.Locations[0].Physical.Region.StartLine
			}
			report.Findings = append(report.Findings, f)
		}
	}
	return report, nil
}

// scoreSeverity names a CVSS score as CVSS 3.1 does.
func scoreSeverity(score float64) string {
	switch {
	case score >= 9:
		return "critical"
	case score >= 7:
		return "high"
	case score >= 4:
		return "medium"
	}
	return "low"
}

// parseSecurity reads a report of GitLab's security report schemas.
func parseSecurity(text []byte) (findingReport, error) {
	var doc struct {
		Vulnerabilities []struct {
			Name        string `json:"name"`
			Message     string `json:"message"`
			Description string `json:"description"`
			Severity    string `json:"severity"`
			Solution    string `json:"solution"`
			Location    struct {
				File       string `json:"file"`
				StartLine  int    `json:"start_line"`
				Image      string `json:"image"`
				Dependency struct {
					Package struct {
						Name string `json:"name"`
					} `json:"package"`
					Version string `json:"version"`
				} `json:"dependency"`
			} `json:"location"`
			Identifiers []struct {
				Name string `json:"name"`
				URL  string `json:"url"`
			} `json:"identifiers"`
		} `json:"vulnerabilities"`
	}
	report := findingReport{Findings: []Finding{}}
	if err := json.Unmarshal(text, &doc); err != nil {
		return report, fmt.Errorf("it is not a security report: %w", err)
	}
	for _, v := range doc.Vulnerabilities {
		f := Finding{Severity: strings.ToLower(v.Severity), Name: v.Name, Description: cut(v.Description), Solution: v.Solution, File: v.Location.File,
			Line: v.Location.StartLine, Package: v.Location.Dependency.Package.Name, Version: v.Location.Dependency.Version}
		setDefault(&f.Name, v.Message)
		setDefault(&f.File, v.Location.Image)
		if len(v.Identifiers) > 0 {
			f.Identifier, f.Link = v.Identifiers[0].Name, v.Identifiers[0].URL
		}
		report.Findings = append(report.Findings, f)
	}
	return report, nil
}
