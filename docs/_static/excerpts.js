/* The search asks for the pages that it found, and makes an excerpt of each. A page opened from disk may read no other,
   so here it gets their text from searchtext.js: see docs/_excerpts.py. */
document.addEventListener("DOMContentLoaded", () => {
  const root = document.documentElement.dataset.content_root;
  const suffix = DOCUMENTATION_OPTIONS.FILE_SUFFIX;

  window.fetch = (url) => Promise.resolve({ text: () => url.slice(root.length, -suffix.length) });
  Search.htmlToText = (page, anchor) => {
    const sections = PAGE_TEXTS[page];
    return sections[anchor] ?? Object.values(sections).join(" ");
  };
});
