/** Brings the rules for code: of answers, calls and changes. Imported by each part that draws some. */

import css from "./code.css";
import { addStyle, shared } from "./install.js";

addStyle(shared(css));
