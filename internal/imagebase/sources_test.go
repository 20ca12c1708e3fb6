package imagebase

import (
	"slices"
	"testing"
	"testing/fstest"
)

func TestTheHostsOwnMirrorsComeFirst(t *testing.T) {
	t.Parallel()
	deb822 := `# the company's mirror
Types: deb deb-src
URIs: http://mirror.example.com/debian
Suites: bookworm
  bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/company.gpg

Types: deb
URIs: https://mirror.example.com/security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://old.example.com/debian
Suites: trixie
Components: main
`
	for name, test := range map[string]struct {
		files   map[string]string
		image   string
		mirror  string
		extra   []string
		keyring string
	}{
		"deb822": {map[string]string{"etc/apt/sources.list.d/debian.sources": deb822}, "debian:bookworm-slim", "http://mirror.example.com/debian",
			[]string{"bookworm-updates http://mirror.example.com/debian", "bookworm-security https://mirror.example.com/security"}, "/usr/share/keyrings/company.gpg"},
		"another suite of the same mirror": {map[string]string{"etc/apt/sources.list.d/debian.sources": deb822}, "debian:trixie", "http://mirror.example.com/debian",
			[]string{"trixie-updates http://mirror.example.com/debian", "trixie-security https://mirror.example.com/security"}, "/usr/share/keyrings/company.gpg"},
		"one line": {map[string]string{"etc/apt/sources.list": "# deb http://x.example.com/debian bookworm main\ndeb cdrom:[Debian]/ bookworm main\ndeb [arch=amd64 signed-by=/k.gpg] http://de.example.com/debian/ bookworm main # near\n"},
			"debian:12", "http://de.example.com/debian/", []string{"bookworm-updates http://de.example.com/debian/", "bookworm-security http://deb.debian.org/debian-security"}, "/k.gpg"},
		"another distribution": {map[string]string{"etc/apt/sources.list.d/debian.sources": deb822, "etc/apt/sources.list.d/x.list": "deb http://packages.example.com/tool stable main"}, "ubuntu:22.04", ubuntuMirror,
			[]string{"jammy-updates " + ubuntuMirror, "jammy-security http://security.ubuntu.com/ubuntu"}, "/usr/share/keyrings/ubuntu-archive-keyring.gpg"},
		"no apt": {nil, "debian:bookworm-slim", debianMirror, []string{"bookworm-updates " + debianMirror, "bookworm-security http://deb.debian.org/debian-security"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := fstest.MapFS{}
			for file, text := range test.files {
				root[file] = &fstest.MapFile{Data: []byte(text)}
			}
			sources, err := hostSources(root)
			if err != nil {
				t.Fatal(err)
			}
			got := releases[test.image].fromHost(sources)
			if got.mirror != test.mirror || !slices.Equal(got.extra, test.extra) || got.keyring != test.keyring {
				t.Errorf("mirror %s, %q, keyring %s", got.mirror, got.extra, got.keyring)
			}
		})
	}
}

// FuzzSources: whatever lies in a host's files, reading them ends without a
// panic and gives addresses with a host.
func FuzzSources(f *testing.F) {
	f.Add([]byte("deb [signed-by=/k] http://m.example.com/debian bookworm main\n"))
	f.Add([]byte("Types: deb\nURIs: http://m.example.com/debian\nSuites: bookworm\n trixie\n\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		sources, err := hostSources(fstest.MapFS{"etc/apt/sources.list": {Data: raw}, "etc/apt/sources.list.d/a.sources": {Data: raw}})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range sources {
			if s.uri == "" || s.suite == "" {
				t.Errorf("an empty source: %+v", s)
			}
		}
		for _, r := range releases {
			if r.fromHost(sources).mirror == "" {
				t.Error("no mirror")
			}
		}
	})
}
