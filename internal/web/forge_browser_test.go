package web_test

import (
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
	evaluate[bool](b, `(() => { const a = [...document.querySelectorAll(".diffs a[data-l]")].find((a) => a.dataset.l === "0,30"); a.closest("tr").querySelector("td.s").dispatchEvent(new MouseEvent("mouseover", { bubbles: true })); a.parentElement.querySelector(".note-add").click(); return true; })()`)
	b.until(`document.activeElement?.closest(".d-form")`)
	b.shot("review-form")
	evaluate[bool](b, `(() => { const t = document.querySelector(".d-form textarea"); t.value = "Why _thirty_, @dev?"; return t.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", ctrlKey: true, bubbles: true })); })()`)
	b.until(`document.querySelector(".d-notes .thread em")?.textContent === "thirty" && location.hash.startsWith("#note_")`)
	b.until(`document.querySelector(".d-notes .thread a[href='/dev']")`)
	b.open(s.server.URL + link + "/diffs?view=parallel")
	b.until(`document.querySelector(".parallel .d-notes .thread")`)
	evaluate[bool](b, `(() => { const a = [...document.querySelectorAll(".diffs a[data-l]")].find((a) => a.dataset.l === "50,0"); a.focus(); return a.dispatchEvent(new KeyboardEvent("keydown", { key: "c", bubbles: true, cancelable: true })); })()`)
	b.until(`document.activeElement?.closest(".d-form")`)
	evaluate[bool](b, `(() => { const t = document.querySelector(".d-form textarea"); t.value = "Why is it gone?"; t.form.requestSubmit(); return true; })()`)
	b.until(`document.querySelectorAll(".parallel .d-notes .thread").length === 2`)
	b.shot("review-parallel")
	evaluate[bool](b, `(() => { window.scrollTo(0, 0); document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "n", bubbles: true })); return true; })()`)
	b.until(`document.activeElement?.classList.contains("thread")`)
	b.fits("the diff")
	b.open(s.server.URL + link + "/diffs?view=inline")
	b.until(`document.querySelector(".diffs .d-notes .thread")`)
	evaluate[bool](b, `(() => { const a = [...document.querySelectorAll(".diffs a[data-l]")].find((a) => a.dataset.l === "0,31"); a.focus(); a.dispatchEvent(new KeyboardEvent("keydown", { key: "c", bubbles: true, cancelable: true })); document.querySelector(".d-form [data-suggest]").click(); return true; })()`)
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
