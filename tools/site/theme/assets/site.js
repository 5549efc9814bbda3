// What is scrolled sideways (wide tables, code, pictures on phones) can be reached and moved by the keyboard;
// the buttons of each block of code have a name of their own.
document.addEventListener("DOMContentLoaded", () => {
  const scrolled = ".md-typeset__scrollwrap, .md-typeset p:has(> img:only-child), .highlight code";
  const mark = () => document.querySelectorAll(scrolled).forEach((each) => {
    if (each.scrollWidth > each.clientWidth) each.tabIndex = 0;
  });
  const name = () => document.querySelectorAll(".md-code__nav").forEach((each, at) => {
    each.setAttribute("aria-label", `Code ${at + 1}`);
  });
  mark();
  addEventListener("load", () => setTimeout(() => { mark(); name(); }, 100));
  addEventListener("resize", mark);
});
