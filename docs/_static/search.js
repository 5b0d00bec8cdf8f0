/* The search asks for the pages that it found, and makes an excerpt of each. A page opened from disk may read no other,
   so here it gets their text from searchtext.js. And it asks for numbers as for words. See docs/_search.py. */
document.addEventListener("DOMContentLoaded", () => {
  const root = document.documentElement.dataset.content_root;
  const suffix = DOCUMENTATION_OPTIONS.FILE_SUFFIX;

  window.fetch = (url) => Promise.resolve({ text: () => url.slice(root.length, -suffix.length) });
  Search.htmlToText = (page, anchor) => {
    const sections = PAGE_TEXTS[page];
    return sections[anchor] ?? Object.values(sections).join(" ");
  };

  const parse = Search._parseQuery;
  Search._parseQuery = (query) => {
    const [text, terms, excluded, highlighted, objects] = parse(query);
    for (const word of splitQuery(query).filter((each) => /^\d+$/.test(each))) {
      terms.add(word);
      highlighted.add(word);
    }
    return [text, terms, excluded, highlighted, objects];
  };
});
