/** Brings the rules for everybody: a part of its own, as little of it is needed to draw a first chat. */

import css from "./access.css";
import { addLastStyle } from "./install.js";

addLastStyle(css);
