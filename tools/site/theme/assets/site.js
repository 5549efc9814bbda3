// What is scrolled sideways (wide tables, code, pictures on phones) can be reached and moved by the keyboard.
document.addEventListener("DOMContentLoaded", () => {
  const scrolled = ".md-typeset__scrollwrap, .md-typeset p:has(> img:only-child), .highlight code";
  const mark = () => document.querySelectorAll(scrolled).forEach((each) => {
    if (each.scrollWidth > each.clientWidth) each.tabIndex = 0;
  });
  mark();
  addEventListener("load", () => setTimeout(mark, 100));
  addEventListener("resize", mark);
});
