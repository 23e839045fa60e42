// Marks tables and formulas that are wider than the page: site.css says there
// that they scroll, and keys can reach them.
function markScrolling() {
  const boxes = document.querySelectorAll(
    ".md-typeset__scrollwrap, .formula");
  for (const box of boxes) {
    const wider = box.scrollWidth > box.clientWidth;
    box.classList.toggle("scrolls", wider);
    if (wider) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}

// The theme wraps tables when it starts.
window.addEventListener("load", () => setTimeout(markScrolling));
window.addEventListener("resize", markScrolling);
