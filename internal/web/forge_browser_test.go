package web_test

import (
	"fmt"
	"testing"
)

// fits reports a page that is wider than its window.
func (b tab) fits(what string) {
	b.t.Helper()
	if over := evaluate[int](b, `document.documentElement.scrollWidth - window.innerWidth`); over > 0 {
		b.t.Errorf("%s is %d pixels wider than the window", what, over)
	}
}

// TestBrowserReview comments on lines of a diff with the mouse and the
// keyboard, in both views, and reads everything on a phone.
func TestBrowserReview(t *testing.T) {
	t.Parallel()
	s, p, link := review(t)
	s.branch(p, "long", map[string]string{"big.txt": numbered(1, 3000), "small.txt": "x\n"})
	b := s.browser("maya", 1280, 900)
	b.open(s.server.URL + link + "/diffs")
	b.until(`document.querySelector(".diffs tr.d-add a[data-l]")`)
	// The part has started once it answers to the mouse.
	b.until(`(() => { const a = [...document.querySelectorAll(".diffs a[data-l]")].find((a) => a.dataset.l === "0,30"); a.closest("tr").querySelector("td.s").dispatchEvent(new MouseEvent("mouseover", { bubbles: true })); return document.querySelector(".note-add"); })()`)
	evaluate[bool](b, `(() => { document.querySelector(".note-add").click(); return true; })()`)
	b.until(`document.activeElement?.closest(".d-form")`)
	b.shot("review-form")
	evaluate[bool](b, `(() => { const t = document.querySelector(".d-form textarea"); t.value = "Why _thirty_, @dev?"; return t.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", ctrlKey: true, bubbles: true })); })()`)
	b.until(`document.querySelector(".d-notes .thread em")?.textContent === "thirty" && location.hash.startsWith("#note_")`)
	b.until(`document.querySelector(".d-notes .thread a[href='/dev']")`)
	b.open(s.server.URL + link + "/diffs?view=parallel")
	b.until(`document.querySelector(".parallel .d-notes .thread")`)
	b.until(`(() => { const a = [...document.querySelectorAll(".diffs a[data-l]")].find((a) => a.dataset.l === "50,0"); a.focus(); a.dispatchEvent(new KeyboardEvent("keydown", { key: "c", bubbles: true, cancelable: true })); return document.activeElement?.closest(".d-form"); })()`)
	evaluate[bool](b, `(() => { const t = document.querySelector(".d-form textarea"); t.value = "Why is it gone?"; t.form.requestSubmit(); return true; })()`)
	b.until(`document.querySelectorAll(".parallel .d-notes .thread").length === 2`)
	b.shot("review-parallel")
	evaluate[bool](b, `(() => { window.scrollTo(0, 0); document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "n", bubbles: true })); return true; })()`)
	b.until(`document.activeElement?.classList.contains("thread")`)
	b.fits("the diff")
	b.open(s.server.URL + link + "/diffs?view=inline")
	b.until(`document.querySelector(".diffs .d-notes .thread")`)
	b.until(`(() => { const a = [...document.querySelectorAll(".diffs a[data-l]")].find((a) => a.dataset.l === "0,31"); a.focus(); a.dispatchEvent(new KeyboardEvent("keydown", { key: "c", bubbles: true, cancelable: true })); return document.activeElement?.closest(".d-form"); })()`)
	evaluate[bool](b, `(() => { document.querySelector(".d-form [data-suggest]").click(); return true; })()`)
	b.until(`document.querySelector(".d-form textarea").value === "` + "```suggestion:-0+0\\nmore\\n```\\n" + `"`)
	evaluate[bool](b, `(() => { const t = document.querySelector(".d-form textarea"); t.value = t.value.replace("more", "much more"); t.form.requestSubmit(); return true; })()`)
	b.until(`document.querySelector(".suggestion .d-add")?.textContent.includes("+much more")`)
	b.shot("review-suggestion")
	evaluate[bool](b, `(() => { document.querySelector(".suggestion button").click(); return true; })()`)
	b.until(`document.querySelector(".notice")?.textContent.includes("applied") && document.querySelector(".diffs").textContent.includes("+much more")`)
	b.open(s.server.URL + link)
	b.until(`document.querySelector("#unresolved")?.textContent === "2 open threads"`)
	b.shot("review-overview")
	b.open(s.server.URL + "/acme/plain/-/compare/main...long")
	b.until(`document.querySelector("a[data-expand]")`)
	b.shot("review-folded")
	evaluate[bool](b, `(() => { document.querySelector("a[data-expand]").click(); return true; })()`)
	b.until(`document.querySelectorAll("details[data-new='big.txt'] tr.d-add").length === 3000 && !location.search`)

	phone := s.browser("dev", 390, 844)
	for name, path := range map[string]string{"overview": "", "diffs": "/diffs", "parallel": "/diffs?view=parallel", "edit": "/edit", "commits": "/commits", "pipelines": "/pipelines"} {
		phone.open(s.server.URL + link + path)
		phone.until(`document.readyState === "complete"`)
		phone.shot("phone-" + name)
		phone.fits(name)
	}
	for name, path := range map[string]string{"list": "/merge_requests", "new": "/merge_requests/new?source_branch=long", "forks": "/forks/new"} {
		phone.open(s.server.URL + "/acme/plain/-" + path)
		phone.until(`document.readyState === "complete"`)
		phone.shot("phone-" + name)
		phone.fits(name)
	}
}

// TestBrowserLines chooses several lines by dragging and by Shift with a click,
// proposes others for them, and submits all in one review.
func TestBrowserLines(t *testing.T) {
	t.Parallel()
	s, p, link := review(t)
	b := s.browser("maya", 1280, 900)
	const find = `const at = (l) => [...document.querySelectorAll(".diffs a[data-l]")].filter((a) => a.dataset.l === l).pop(); const mouse = (e, kind) => e.dispatchEvent(new MouseEvent(kind, { bubbles: true, cancelable: true, button: 0 }));`
	for _, view := range []string{"inline", "parallel"} {
		b.open(s.server.URL + link + "/diffs?view=" + view)
		b.until(`document.querySelector(".diffs[data-notes] a[data-l]")`)
		// The part has started once it answers to the mouse.
		b.until(`(() => { ` + find + ` mouse(at("0,30").closest("tr").querySelector("td.s:last-child"), "mouseover"); return document.querySelector(".note-add"); })()`)
		evaluate[bool](b, `(() => { `+find+` mouse(at("0,30"), "mousedown"); mouse(at("0,31").closest("tr").querySelector("td.s:last-child"), "mousemove"); mouse(at("0,31"), "mouseup"); return true; })()`)
		b.until(`document.activeElement?.closest(".d-form") && document.querySelector(".d-form select").value === "0,30" && document.querySelector(".d-form .lines").textContent.includes("to +31")`)
		b.until(`document.querySelectorAll(".d-sel").length === ` + map[string]string{"inline": "2", "parallel": "4"}[view])
		evaluate[bool](b, `(() => { document.querySelector(".d-form [data-suggest]").click(); return true; })()`)
		b.until(`document.querySelector(".d-form textarea").value === "` + "```suggestion:-1+0\\nline thirty of <b>\\nmore\\n```\\n" + `"`)
		b.shot("lines-" + view)
	}
	b.fits("a choice of lines")
	evaluate[bool](b, `(() => { document.querySelector(".d-form button[name=review]").click(); return true; })()`)
	b.until(`location.hash.startsWith("#held_") && document.querySelector(".d-notes .held .suggestion")`)
	b.open(s.server.URL + link + "/diffs?view=inline")
	b.until(`document.querySelector(".note-add") || (() => { ` + find + ` mouse(at("28,28").closest("tr").querySelector("td.s"), "mouseover"); return false; })()`)
	evaluate[bool](b, `(() => { `+find+` at("28,28").click(); at("0,30").dispatchEvent(new MouseEvent("click", { bubbles: true, cancelable: true, shiftKey: true })); return true; })()`)
	b.until(`document.querySelector(".d-form select").value === "28,28"`)
	evaluate[bool](b, `(() => { const t = document.querySelector(".d-form textarea"); t.value = "From there on"; return t.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", ctrlKey: true, bubbles: true })); })()`)
	b.until(`document.querySelectorAll(".d-notes .held").length === 2 && document.querySelector(".diffs").textContent.includes("Lines 28 to +30")`)
	evaluate[bool](b, `(() => { document.querySelector("#review summary").click(); return true; })()`)
	b.until(`document.querySelector("#review details").open`)
	b.shot("lines-review")
	b.fits("a review")
	evaluate[bool](b, `(() => { document.querySelector("#review [value=approve]").click(); document.querySelector("#review form button").click(); return true; })()`)
	b.until(`document.querySelector(".notice")?.textContent.includes("submitted") && document.querySelector("#approvals").textContent.includes("Maya")`)
	phone := s.browser("maya", 390, 844)
	s.post("maya", link+"/notes", "note", "One more", "review", "1")
	commit := "/acme/plain/-/commit/" + s.head(p, "feature")
	s.post("dev", commit+"/notes", "note", "On the whole")
	s.post("dev", commit+"/notes", "base_sha", s.head(p, "main"), "start_sha", s.head(p, "main"), "head_sha", s.head(p, "feature"), "old_path", "a.txt", "new_path", "a.txt", "old_line", "0", "new_line", "30", "note", "On a line")
	for _, one := range []tab{b, phone} {
		one.open(s.server.URL + commit)
		one.until(`document.querySelector(".d-notes .thread") && document.querySelector("#comments .thread")`)
		one.shot(fmt.Sprintf("commit-%d", evaluate[int](one, `window.innerWidth`)))
		one.fits("a commit with comments")
	}
	for name, path := range map[string]string{"held": "", "held-diffs": "/diffs"} {
		phone.open(s.server.URL + link + path)
		phone.until(`document.querySelector("#review summary")`)
		evaluate[bool](phone, `(() => { document.querySelector("#review summary").click(); return true; })()`)
		phone.until(`document.querySelector("#review details").open`)
		phone.shot("phone-" + name)
		phone.fits(name)
	}
}
