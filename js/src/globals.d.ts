/** The version of the package, put in by build.mjs. */
declare const __NAVI_VERSION__: string;

/** Whether everything is in one file: then there is nothing beside it that could be loaded. Put in by build.mjs. */
declare const __NAVI_SINGLE__: boolean;

/** The version and a digest of navi-chat.js, put into what loads it. */
declare const __NAVI_BUNDLE__: string;

declare module "*.css" {
  const text: string;
  export default text;
}
