import { defineConfig } from "vitest/config";

export default defineConfig({
  define: { __NAVI_VERSION__: JSON.stringify("test"), __NAVI_BUNDLE__: JSON.stringify("test-0"), __NAVI_SINGLE__: "true" },
  test: { environment: "jsdom", testTimeout: 20_000, include: ["test/**/*.test.ts"], setupFiles: ["test/setup.ts"], restoreMocks: true },
});
