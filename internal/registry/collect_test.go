package registry_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"testing"
	"time"

	container "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/registry"
)

type using []string

func (u using) InUse(context.Context) ([]string, error) { return u, nil }

type unknownUse struct{}

func (unknownUse) InUse(context.Context) ([]string, error) { return nil, errors.New("api server away") }

// blobFiles counts the stored blobs.
func blobFiles(t *testing.T, dir string) int {
	t.Helper()
	n := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "data" && !d.IsDir() {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestCollectFreesWhatNothingNeeds(t *testing.T) {
	t.Parallel()
	var dir string
	running := &using{}
	f := start(t, func(c *registry.Config) { dir, c.Use = c.Dir, running })
	project := f.people.add("g/app", delivery.Private)
	old, kept, deployed, shared := image(t, 2), image(t, 2), image(t, 1), image(t, 1)
	f.push("g/app:main", old, as("dev"))
	f.push("g/app:main", kept, as("dev")) // old is now untagged
	f.push("g/app:live", deployed, as("dev"))
	f.push("g/app:gone", shared, as("dev"))
	f.push("g/app/other:stays", shared, as("dev"))
	*running = using{f.host + "/g/app@" + digestOf(t, deployed)}
	for _, tag := range []string{"live", "gone"} {
		if err := remote.Delete(f.ref("g/app:"+tag), as("dev")); err != nil {
			t.Fatal(err)
		}
	}
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: image(t, 1)}, mutate.IndexAddendum{Add: image(t, 1)})
	if err := remote.WriteIndex(f.ref("g/app:multi"), index, as("dev")); err != nil {
		t.Fatal(err)
	}

	if done, err := f.Collect(t.Context()); err != nil || done.Images+done.Blobs != 0 {
		t.Fatalf("young images went: %+v, %v", done, err)
	} else if done.WaitingImages != 2 || done.WaitingBlobs != 0 {
		t.Errorf("what waits: %+v", done)
	}
	f.clock.advance(25 * time.Hour)
	before := blobFiles(t, dir)
	done, err := f.Collect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// old: manifest, configuration and 2 layers; gone: one repository's manifest, whose blobs the other still has.
	if done.Images != 2 || done.Blobs != 4 || before-blobFiles(t, dir) != 4 || done.Bytes <= 0 {
		t.Errorf("collected %+v, %d files", done, before-blobFiles(t, dir))
	}
	for ref, img := range map[string]container.Image{"g/app:main": kept, "g/app/other:stays": shared, "g/app@" + digestOf(t, deployed): deployed} {
		got, err := remote.Image(f.ref(ref), as("dev"))
		if err == nil {
			err = readAll(got)
		}
		if err != nil || digestOf(t, got) != digestOf(t, img) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if _, err := remote.Index(f.ref("g/app:multi"), as("dev")); err != nil {
		t.Errorf("the index went: %v", err)
	}
	repos, err := f.Repositories(t.Context(), project.ID)
	if err != nil || len(repos) != 2 {
		t.Fatalf("%+v %v", repos, err)
	}
	*running = nil
	if err := remote.Delete(f.ref("g/app:multi"), as("dev")); err != nil {
		t.Fatal(err)
	}
	f.clock.advance(25 * time.Hour)
	if done, err = f.Collect(t.Context()); err != nil || done.Images != 4 {
		t.Errorf("an index, its two images and the stopped one: %+v, %v", done, err)
	}

	// Who needs room now does not wait for a day.
	f.push("g/app:hasty", image(t, 2), as("dev"))
	if err := remote.Delete(f.ref("g/app:hasty"), as("dev")); err != nil {
		t.Fatal(err)
	}
	f.clock.advance(30 * time.Minute)
	if done, err = f.CollectUntagged(t.Context()); err != nil || done.Images+done.Blobs != 0 || done.WaitingImages != 1 {
		t.Errorf("after half an hour: %+v, %v", done, err)
	}
	f.clock.advance(time.Hour)
	if done, err = f.Collect(t.Context()); err != nil || done.Images != 0 || done.WaitingImages != 1 {
		t.Errorf("the usual collection, before a day: %+v, %v", done, err)
	}
	if done, err = f.CollectUntagged(t.Context()); err != nil || done.Images != 1 || done.Blobs != 4 || done.WaitingImages != 0 {
		t.Errorf("after an hour: %+v, %v", done, err)
	}
}

func readAll(img container.Image) error {
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		r, err := l.Compressed()
		if err != nil {
			return err
		}
		r.Close()
	}
	return nil
}

func TestCollectStopsWhenUseIsUnknown(t *testing.T) {
	t.Parallel()
	f := start(t, func(c *registry.Config) { c.Use = unknownUse{} })
	f.people.add("g/app", delivery.Private)
	f.push("g/app:v1", image(t, 1), as("dev"))
	f.push("g/app:v1", image(t, 1), as("dev"))
	f.clock.advance(48 * time.Hour)
	done, err := f.Collect(t.Context())
	if delivery.KindOf(err) != delivery.Unavailable || done.Images+done.Blobs+done.Tags != 0 {
		t.Errorf("%+v, %v", done, err)
	}
}

func TestPolicy(t *testing.T) {
	t.Parallel()
	f := start(t, func(c *registry.Config) { c.Use = using{"127.0.0.1:1/g/app:run-0"} })
	project := f.people.add("g/app", delivery.Private)
	for i := range 5 {
		f.push(fmt.Sprintf("g/app:run-%d", i), image(t, 1), as("dev"))
		f.clock.advance(time.Hour)
	}
	for _, tag := range []string{"latest", "v1", "release-1"} {
		f.push("g/app:"+tag, image(t, 1), as("dev"))
	}
	bad := registry.Policy{ProjectID: project.ID, Enabled: true, NameRegex: "(", KeepN: -1}
	if err := f.SetPolicy(t.Context(), bad); delivery.KindOf(err) != delivery.Invalid {
		t.Errorf("bad policy: %v", err)
	}
	policy := registry.Policy{ProjectID: project.ID, Enabled: true, NameRegex: ".*", KeepRegex: "v.+|release-.*", KeepN: 1, OlderThan: 90 * time.Minute, Cadence: time.Hour}
	if err := f.SetPolicy(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	f.clock.advance(65 * time.Minute)
	if _, err := f.Preview(t.Context(), bad); delivery.KindOf(err) != delivery.Invalid {
		t.Errorf("preview of a bad policy: %v", err)
	}
	going, err := f.Preview(t.Context(), policy)
	if err != nil || len(going) != 3 || going[0].Repository != "g/app" || going[0].Name != "run-3" || going[2].Name != "run-1" {
		t.Errorf("preview: %+v, %v", going, err)
	}
	done, err := f.Collect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	repo, err := f.Repositories(t.Context(), project.ID)
	if err != nil {
		t.Fatal(err)
	}
	tags, err := f.Tags(t.Context(), repo[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, tag := range tags {
		got += tag.Name + " "
	}
	// run-4 is the newest that matches, run-0 is in use; the others are older than 90 minutes.
	if want := "latest release-1 run-0 run-4 v1 "; got != want || done.Tags != 3 {
		t.Errorf("tags %q, want %q; removed %d", got, want, done.Tags)
	}
}

// TestPushesDuringCollection pushes images that share layers while others are
// deleted and the collector runs without pause: every push that was answered
// with success can be pulled whole.
func TestPushesDuringCollection(t *testing.T) {
	t.Parallel()
	const grace = 700 * time.Millisecond
	f := start(t, func(c *registry.Config) {
		c.Now, c.UntaggedAfter, c.BlobAfter = time.Now, time.Millisecond, grace
	})
	f.people.add("g/app", delivery.Private)
	base := make([]container.Image, 3)
	for i := range base {
		base[i] = image(t, 2)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var pushers, collector sync.WaitGroup
	collecting, stop := context.WithCancel(ctx)
	var removed registry.Collected
	collector.Go(func() {
		for collecting.Err() == nil {
			done, err := f.Collect(collecting)
			if err != nil && collecting.Err() == nil {
				t.Error(err)
				return
			}
			removed.Images += done.Images
			removed.Blobs += done.Blobs
		}
	})
	begin := time.Now()
	for worker := range 4 {
		pushers.Go(func() {
			for i := 0; time.Since(begin) < 3*time.Second; i++ {
				layer, err := random.Layer(512, "application/vnd.docker.image.rootfs.diff.tar.gzip")
				if err != nil {
					t.Error(err)
					return
				}
				img, err := mutate.AppendLayers(base[(worker+i)%len(base)], layer)
				if err != nil {
					t.Error(err)
					return
				}
				ref := f.ref(fmt.Sprintf("g/app/w%d:t%d", worker%2, worker))
				pushing := time.Now()
				if err := remote.Write(ref, img, as("dev")); err != nil {
					if time.Since(pushing) > grace {
						continue // longer than what is promised, on a busy machine
					}
					t.Errorf("push: %v", err)
					return
				}
				tooLong := time.Since(pushing) > grace
				got, err := remote.Image(ref, as("dev"))
				if err == nil && digestOf(t, got) == digestOf(t, img) {
					err = readAll(got)
				}
				if err != nil && tooLong {
					continue
				}
				if err != nil {
					t.Errorf("pull after push: %v", err)
					return
				}
				if i%3 == 2 {
					if err := remote.Delete(ref, as("dev")); err != nil {
						t.Errorf("delete: %v", err)
					}
				}
			}
		})
	}
	pushers.Wait()
	stop()
	collector.Wait()
	for (removed.Images == 0 || removed.Blobs == 0) && ctx.Err() == nil { // a machine too busy to get there meanwhile
		done, err := f.Collect(ctx)
		if err != nil {
			t.Fatal(err)
		}
		removed.Images += done.Images
		removed.Blobs += done.Blobs
	}
	if removed.Images == 0 || removed.Blobs == 0 {
		t.Errorf("the collector removed %d images and %d blobs", removed.Images, removed.Blobs)
	}
}

func TestReconcileAfterCrash(t *testing.T) {
	t.Parallel()
	var index registry.Index
	broken := &breaking{}
	f := start(t, func(c *registry.Config) {
		broken.Index = c.Index
		index, c.Index = c.Index, broken
	})
	f.people.add("g/app", delivery.Private)
	img := image(t, 1)
	broken.on.Store(true)
	if err := remote.Write(f.ref("g/app:v1"), img, as("dev"), remote.WithRetryBackoff(remote.Backoff{Steps: 1})); err == nil {
		t.Fatal("a push that was not recorded was called done")
	}
	broken.on.Store(false)
	if n := len(f.events()); n != 0 {
		t.Fatalf("%d events", n)
	}
	if _, err := f.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	repo, err := index.RepositoryByPath(t.Context(), "g/app")
	if err != nil {
		t.Fatal(err)
	}
	if tag, err := index.Tag(t.Context(), repo.ID, "v1"); err != nil || tag.Digest != digestOf(t, img) {
		t.Errorf("%+v, %v", tag, err)
	}
	if events := f.events(); len(events) != 1 || events[0].Tag != "v1" {
		t.Errorf("events: %+v", events)
	}
}
