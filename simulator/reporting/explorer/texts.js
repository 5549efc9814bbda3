"use strict";
// Texts of examples as they are: put in as text, never as markup, with nothing in them that can hide or reorder.

const DIRECTIONS = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/** Control characters as their pictures, marks of direction by their numbers; line breaks and tabs stay. */
function visible(text) {
  return text
    .replace(/\r\n?/g, "\n")
    .replace(/[\u0000-\u0008\u000b-\u001f]/g, (mark) => String.fromCharCode(0x2400 + mark.charCodeAt(0)))
    .replace(/[\u007f-\u009f]/g, (mark) => `\u2039${mark.charCodeAt(0).toString(16).toUpperCase()}\u203a`)
    .replace(DIRECTIONS, (mark) => `\u2039U+${mark.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}\u203a`);
}

/** One line of at most so many characters, e.g. for a list to choose from. */
function shortened(text, most) {
  const characters = Array.from(visible(text).replace(/\s+/g, " ").trim());
  return characters.slice(0, most).join("") + (characters.length > most ? "\u2026" : "");
}

/** An element with text, classes and attributes; children may be strings. */
function made(tag, { text, ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
  element.append(...children);
  return element;
}

const MINUS = "\u2212";

function numberText(value, digits = 3) {
  const plain = value.toFixed(digits);
  return (Number(plain) === 0 ? plain.replace("-", "") : plain).replace("-", MINUS);
}

function signedText(value, digits = 3) {
  const plain = numberText(value, digits);
  return plain.startsWith(MINUS) || Number(plain) === 0 ? plain : "+" + plain;
}
