/** Brings the rules for fields of forms. Imported by each part that draws some. */

import css from "./fields.css";
import { addStyle, shared } from "./install.js";

addStyle(shared(css));
