/**
 * Makes HTML that an agent wrote harmless. Nothing in it may run, phone home, look like a part of the application, or
 * be found by the application's own selectors and command hooks: so no styles, ids, data-attributes or foreign classes,
 * no forms, and no resource that is loaded from anywhere.
 */

import createDOMPurify, { type Config, type DOMPurify } from "dompurify";

const TAGS =
  "p br hr h1 h2 h3 h4 h5 h6 strong em b i u s del ins sub sup mark small kbd samp var code pre blockquote q cite " +
  "ul ol li dl dt dd table caption thead tbody tfoot tr th td a img details summary span div abbr";
const MATH_TAGS =
  "math semantics mrow mi mo mn ms mtext mspace mfrac msqrt mroot mstyle mpadded mphantom menclose msub msup msubsup " +
  "munder mover munderover mmultiscripts mtable mtr mtd merror mprescripts none";
const ATTRIBUTES = "href title alt src class colspan rowspan start open lang dir align";
const MATH_ATTRIBUTES =
  "display mathvariant stretchy fence separator lspace rspace minsize maxsize symmetric largeop movablelimits accent " +
  "accentunder width height depth voffset linethickness columnalign rowspacing columnspacing columnlines rowlines " +
  "scriptlevel displaystyle notation encoding xmlns";

const CONFIG: Config = {
  ALLOWED_TAGS: `${TAGS} ${MATH_TAGS}`.split(" "),
  ALLOWED_ATTR: `${ATTRIBUTES} ${MATH_ATTRIBUTES}`.split(" "),
  ALLOW_ARIA_ATTR: false,
  ALLOW_DATA_ATTR: false,
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:|attachment:|data:image\/(?:png|jpeg|gif|webp);base64,|[^a-z]|[a-z+.-]+(?:[^a-z+.\-:]|$))/i,
  RETURN_DOM_FRAGMENT: true,
};

const OWN_CLASS = /^(?:hljs(?:-\S+)?|language-[\w+#.-]+|navi-(?:code|math|math-display|remote-image|task|task-done|note-reference|referred)|\w+_)$/;
const EMBEDDED_IMAGE = /^data:image\/(?:png|jpeg|gif|webp);base64,/i;

let purifier: DOMPurify | undefined;

/** `html` as nodes that are safe to insert. `imageNote` stands where an image was taken out. */
export function sanitize(html: string, imageNote: string): DocumentFragment {
  purifier ??= create(imageNote);
  return purifier.sanitize(html, CONFIG) as unknown as DocumentFragment;
}

function create(imageNote: string): DOMPurify {
  const purify = createDOMPurify(window); // our own: hooks on the shared instance would hit the page's other users
  purify.addHook("uponSanitizeAttribute", (_node, attribute) => {
    if (attribute.attrName !== "class") return;
    attribute.attrValue = attribute.attrValue.split(/\s+/).filter((name) => OWN_CLASS.test(name)).join(" ");
    attribute.keepAttr = attribute.attrValue !== "";
  });
  purify.addHook("afterSanitizeAttributes", (node) => {
    if (node.nodeName === "IMG") withoutRemoteImage(node, imageNote);
    else if (node.hasAttribute("src")) node.removeAttribute("src");
    if (node.nodeName === "A") {
      if (/^attachment:/i.test(node.getAttribute("href") ?? "")) node.removeAttribute("href");
      node.setAttribute("target", "_blank");
      node.setAttribute("rel", "noopener noreferrer");
    } else {
      node.removeAttribute("href");
    }
  });
  return purify;
}

/** An attachment, or an image file in the notebook's folder or below it: no scheme, nothing that climbs, no encoded signs. */
const REFERRED = /^(?:attachment:[\w-]{1,128}|(?:\.\/)?(?:[^/\\:?#%<>"'\s.][^/\\:?#%<>"']*\/)*[^/\\:?#%<>"'\s.][^/\\:?#%<>"']*\.(?:png|jpe?g|gif|webp))$/i;

/** Whether an image of that address may be looked for on the user's own server. */
export function isReferred(reference: string): boolean {
  return reference.length <= 2_000 && REFERRED.test(reference);
}

/** A remote image tells its server that, and what, somebody reads here. */
function withoutRemoteImage(image: Element, note: string): void {
  if (EMBEDDED_IMAGE.test(image.getAttribute("src") ?? "")) return;
  const placeholder = image.ownerDocument.createElement("span");
  const reference = plainAddress(image.getAttribute("src") ?? "");
  if (isReferred(reference)) {
    placeholder.className = "navi-referred";
    placeholder.title = reference;
    placeholder.textContent = image.getAttribute("alt");
    image.replaceWith(placeholder);
    return;
  }
  placeholder.className = "navi-remote-image";
  placeholder.textContent = `[${[image.getAttribute("alt"), note].filter(Boolean).join(": ")}]`;
  image.replaceWith(placeholder);
}

/** Without the encoding of blanks and letters; empty where it is none. */
function plainAddress(address: string): string {
  try {
    return decodeURIComponent(address);
  } catch {
    return "";
  }
}
