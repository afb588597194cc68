// What test_language.py looks for in a page whose texts are in marks. Evaluated in the page; the answer has what was found.
({
  // What is seen, or read aloud, without marks. Data is left out: what somebody wrote, names, code, times.
  unmarked: () => {
      const DATA = '[dir=auto], [lang=""], code, pre, time, kbd, svg, style, script, .navi-chip-size, .navi-code, .navi-countdown, '
          + '.navi-elapsed, .navi-katex, [data-foreign], option[value]:not([value=""]), .navi-recall-when, .navi-terminal, .navi-markdown, .navi-gist, .navi-model, [data-navi=worker] > summary, '
          + '[data-navi=ask][data-kind=question], .navi-args, [data-navi=calendar-grid] thead, .navi-calendar-number, [data-navi=agenda-day] h4, [data-navi=setup-use], '
          + '[data-navi=mcp-server] b, [data-navi=recall-parsed], [data-navi=overview-recall] .navi-text, [data-navi=announcer], [data-navi=ledger] > p, [data-navi=ask-detail] > figcaption, [data-navi=reached], [data-navi=recall-warning], .navi-tool-problem';
      const bare = text => { for (let last = ''; last !== text;) { last = text; text = text.replace(/⟦[^⟦⟧]*⟧/g, ''); } return text; };
      const isText = text => /[\p{L}]{2,}/u.test(bare(text));
      const found = new Set();
      for (const root of document.querySelectorAll('navi-chat, navi-toasts')) {
          const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
          for (let node = walker.nextNode(); node; node = walker.nextNode()) {
              const parent = node.parentElement;
              if (isText(node.data) && !parent.closest(DATA)) found.add(`${parent.closest('[data-navi]')?.dataset.navi}: ${node.data.trim()}`);
          }
          for (const element of root.querySelectorAll('*')) {
              for (const name of ['aria-label', 'title', 'placeholder', 'alt', 'aria-description', 'aria-roledescription', 'aria-valuetext']) {
                  const text = element.getAttribute(name);
                  if (!text || !isText(text) || text.includes('⟦')) continue;
                  if (name === 'title' && (/\d{4}.*\d:\d\d/.test(text) || element.matches('[dir=auto], time') || element.closest('[lang=""], [data-navi=attachment], .navi-calendar-entry'))) continue;
                  if (element.closest('[data-navi=outputs], [data-navi=ask-detail]')) continue;
                  found.add(`${element.dataset.navi ?? element.className} @${name}: ${text}`);
              }
          }
      }
      return [...found];
  },
  // What is cut off, or wider than the chat that it is in. What scrolls by itself, or ends in an ellipsis, is neither.
  overflow: () => {
      const found = new Set();
      for (const root of document.querySelectorAll('navi-chat')) {
          const box = root.getBoundingClientRect();
          for (const element of root.querySelectorAll('*')) {
              const own = element.getBoundingClientRect();
              if (!own.width || !own.height || !element.checkVisibility({visibilityProperty: true}) || element.closest('svg, pre, .navi-katex, table, [data-navi=skip]')) continue;
              const name = element.dataset.navi ?? (element.getAttribute('class') || element.tagName);
              const inScroller = (() => { for (let at = element.parentElement; at && at !== root; at = at.parentElement) if (getComputedStyle(at).overflowX !== 'visible') return true; return false; })();
              if (!inScroller && (own.right > box.right + 1 || own.left < box.left - 1)) found.add(`${name} leaves the chat: ${element.textContent.trim().slice(0, 60)}`);
              const style = getComputedStyle(element);
              if (element.matches('button, label, summary') && style.overflowX === 'hidden' && style.textOverflow !== 'ellipsis' && element.scrollWidth > element.clientWidth + 1)
                  found.add(`${name} is cut: ${element.textContent.trim().slice(0, 60)}`);
          }
          if (root.scrollWidth > root.clientWidth + 1) found.add('the chat scrolls sideways');
      }
      return [...found];
  },
})
