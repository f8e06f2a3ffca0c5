"use strict";(self.rspackChunkfrozenkit=self.rspackChunkfrozenkit||[]).push([[442],{880(e,t,r){var o=r(601),a=r.n(o),n=r(314),i=(r.n(n))()(a());i.push([e.id,`/* The one theme: of pages, widgets and the course panel; frozenkit/plots/style.py has the same palette.

   The palette is that of Okabe and Ito (2008), which all common kinds of colour vision tell apart. Roles are what the
   rest of the styles name: dark on a light ground, light on a dark one, each legible there. */
:root {
  --fk-orange: #e69f00;
  --fk-sky: #56b4e9;
  --fk-green: #009e73;
  --fk-yellow: #f0e442;
  --fk-blue: #0072b2;
  --fk-vermilion: #d55e00;
  --fk-purple: #cc79a7;
  --fk-grey: #7f7f7f;

  --fk-ink: light-dark(#1a1a1a, #eceff2);
  --fk-soft: light-dark(#5c6570, #a3adb8);
  --fk-line: light-dark(#d9dee4, #3a434d);
  --fk-page: light-dark(#ffffff, #14181c);
  --fk-card: light-dark(#f5f7f9, #1d2329);

  --fk-mark: light-dark(var(--fk-blue), var(--fk-sky));
  --fk-call: #005a8f;
  --fk-call-hover: #00446d;
  --fk-warm: light-dark(var(--fk-vermilion), #f08a3c);
  --fk-cool: light-dark(#007a5a, #2fc79a);
  --fk-odd: light-dark(#9b4f80, #d98fbc);
  --fk-right: light-dark(#00664a, #3fd0a4);
  --fk-late: light-dark(#a04000, #ffa766);
  --fk-wrong: light-dark(#8c1d18, #ffd9d4);
  --fk-wrong-ground: light-dark(#fdecea, #4a1512);

  --fk-font: system-ui, sans-serif;
  --fk-mono: ui-monospace, monospace;
}

/* A notebook is light or dark by its own setting, not by the system's. */
.fk-lab,
.fk-panel,
.fk-bar,
.fk-steps,
.fk-lecture-bar {
  color-scheme: light;
}
:is(body[data-jp-theme-light="false"], body.vscode-dark, html[theme="dark"])
  :is(.fk-lab, .fk-panel, .fk-bar, .fk-steps, .fk-lecture-bar) {
  color-scheme: dark;
}
`,""]),r.d(t,{},{A:i})},646(e,t,r){var o=r(601),a=r.n(o),n=r(314),i=(r.n(n))()(a());i.push([e.id,`/* The course panel; colours are those of theme.css, the ground and its ink those of JupyterLab. */

.fk-panel {
  padding: 0 14px 24px;
  overflow: auto;
  color: var(--jp-ui-font-color1);
  background: var(--jp-layout-color1);
  font-size: var(--jp-ui-font-size1);
  line-height: 1.45;
  min-width: 250px;
}

.fk-panel h2 {
  font-size: 17px;
  margin: 16px 0 10px;
}

.fk-panel h3 {
  font-size: var(--jp-ui-font-size1);
  margin: 20px 0 6px;
  padding-top: 10px;
  border-top: 1px solid var(--jp-border-color2);
}

.fk-panel p {
  margin: 4px 0;
}

.fk-panel button,
.fk-bar button,
.fk-lecture-bar button,
.fk-steps button {
  font: inherit;
  color: inherit;
  background: transparent;
  border: 1px solid var(--jp-border-color1);
  border-radius: 5px;
  padding: 3px 10px;
  cursor: pointer;
}

.fk-panel button:hover,
.fk-bar button:hover,
.fk-lecture-bar button:hover,
.fk-steps button:hover {
  background: var(--jp-layout-color2);
}

.fk-panel button:focus-visible,
.fk-bar button:focus-visible,
.fk-lecture-bar button:focus-visible,
.fk-steps button:focus-visible {
  outline: 3px solid var(--fk-sky);
  outline-offset: 1px;
}

.fk-bar button[aria-disabled] {
  opacity: 0.65;
  cursor: default;
}

.fk-panel .fk-go,
.fk-bar .fk-call,
.fk-panel .fk-call {
  background: var(--fk-call);
  border-color: var(--fk-call);
  color: #fff;
}

.fk-panel .fk-go {
  width: 100%;
  padding: 8px 10px;
  font-weight: 600;
  text-align: left;
}

.fk-panel .fk-go:hover,
.fk-panel .fk-call:hover,
.fk-bar .fk-call:hover {
  background: var(--fk-call-hover);
}

.fk-panel section > button,
.fk-panel li > button {
  display: block;
  margin: 6px 0;
  text-align: left;
}

.fk-map {
  list-style: none;
  margin: 14px 0 0;
  padding: 0;
}

.fk-map > li {
  padding: 7px 8px;
  border-left: 4px solid transparent;
}

.fk-map > li.fk-here {
  border-left-color: var(--fk-blue);
  background: var(--jp-layout-color2);
}

.fk-row {
  display: flex;
  align-items: baseline;
  gap: 6px;
}

.fk-row .fk-lesson {
  flex: 1;
  border-color: transparent;
  padding: 0;
  font-weight: 600;
  text-align: left;
  white-space: pre-wrap;
}

.fk-row .fk-lesson:hover {
  text-decoration: underline;
  background: transparent;
}

.fk-row .fk-fold {
  padding: 0 7px;
  min-width: 26px;
}

.fk-state,
.fk-soft {
  color: var(--jp-ui-font-color1);
  opacity: 0.85;
}

.fk-dot.fk-done,
.fk-right {
  color: var(--fk-right);
}

.fk-late {
  color: var(--fk-late);
}

.fk-aims {
  list-style: none;
  margin: 6px 0 8px;
  padding: 0;
}

.fk-aims li {
  padding-left: 1.25em;
  text-indent: -1.25em;
  margin: 3px 0;
}

.fk-notice {
  border-left: 4px solid var(--fk-orange);
  background: var(--jp-layout-color2);
  padding: 4px 10px;
  margin-bottom: 12px;
}

.fk-buttons {
  display: flex;
  gap: 6px;
  margin-top: 6px;
}

.fk-panel meter {
  width: 100%;
}

.fk-hidden {
  position: absolute;
  width: 1px;
  height: 1px;
  overflow: hidden;
  clip-path: inset(50%);
  white-space: nowrap;
}

/* In a notebook */

.fk-steps {
  display: flex;
  gap: 4px;
  align-items: center;
  font-size: var(--jp-ui-font-size1);
  color: var(--jp-ui-font-color1);
}

.fk-steps button {
  border-color: transparent;
  padding: 1px 7px;
  line-height: 20px;
  white-space: nowrap;
}

.fk-bar {
  display: flex;
  flex-wrap: wrap;
  align-items: center;
  gap: 8px;
  margin: 6px 0 4px calc(var(--jp-cell-prompt-width) + 8px);
  font-size: var(--jp-ui-font-size1);
  color: var(--jp-ui-font-color1);
}

.fk-bar [role="status"] {
  font-weight: 600;
  margin-right: 6px;
}

.fk-held-back {
  display: none !important;
}

/* Lecture mode: the notebook over everything else, in large type. Its cells stay where they are. */

.fk-lecturing #main,
.fk-lecturing #main * {
  contain: none !important;
}

.fk-lecturing #main {
  visibility: hidden;
}

.fk-lecture {
  visibility: visible;
  position: fixed !important;
  inset: 0 !important;
  width: 100vw !important;
  height: 100vh !important;
  z-index: 10000;
  background: var(--jp-layout-color0);

  --jp-content-font-size1: clamp(18px, 1.7vw, 30px);
  --jp-content-font-scale-factor: 1.22;
  --jp-code-font-size: clamp(16px, 1.4vw, 25px);
  --jp-ui-font-size1: clamp(15px, 1.1vw, 20px);
  --jp-cell-prompt-width: 0px;
}

.fk-lecture .jp-Notebook {
  padding: 3vh max(4vw, calc((100vw - 1500px) / 2)) 56px;
}

.fk-lecture .jp-Cell.fk-off,
.fk-lecture .jp-CodeCell:has(.fk-lab) .jp-Cell-inputWrapper,
.fk-lecture .jp-InternalAnchorLink,
.fk-lecture .jp-InputPrompt,
.fk-lecture .jp-OutputPrompt,
.fk-lecture .jp-Collapser,
.fk-lecture .jp-cell-toolbar,
.fk-lecture .jp-NotebookFooter,
.fk-lecture .jp-Notebook-footer,
.fk-lecture .fk-bar {
  display: none !important;
}

.fk-lecture .jp-Cell.fk-held-back.fk-shown {
  display: block !important;
}

.fk-lecture .jp-Cell {
  border-color: transparent !important;
}

.fk-lecture .jp-Cell.fk-secret.fk-shown {
  border-left: 5px solid var(--fk-orange) !important;
  padding-left: 14px;
}

.fk-lecture .jp-Notebook img,
.fk-lecture .jp-Notebook svg {
  max-height: 74vh;
}

.fk-lecture-bar {
  position: fixed;
  left: 0;
  right: 0;
  bottom: 0;
  z-index: 1;
  display: flex;
  gap: 10px;
  align-items: center;
  padding: 8px max(4vw, calc((100vw - 1500px) / 2));
  font-size: 16px;
  color: var(--jp-ui-font-color1);
  background: var(--jp-layout-color1);
  border-top: 1px solid var(--jp-border-color2);
  outline: none;
}

.fk-lecture-bar .fk-clock {
  margin-right: auto;
  font-variant-numeric: tabular-nums;
}

.fk-lecture-bar button[aria-pressed="true"] {
  background: var(--fk-call);
  border-color: var(--fk-call);
  color: #fff;
}

@media (prefers-reduced-motion: no-preference) {
  .fk-lecture .fk-first {
    animation: fk-arrive 160ms ease-out;
  }

  @keyframes fk-arrive {
    from {
      opacity: 0;
    }
  }
}
`,""]),r.d(t,{},{A:i})},314(e){e.exports=function(e){var t=[];return t.toString=function(){return this.map(function(t){var r="",o=void 0!==t[5];return t[4]&&(r+="@supports (".concat(t[4],") {")),t[2]&&(r+="@media ".concat(t[2]," {")),o&&(r+="@layer".concat(t[5].length>0?" ".concat(t[5]):""," {")),r+=e(t),o&&(r+="}"),t[2]&&(r+="}"),t[4]&&(r+="}"),r}).join("")},t.i=function(e,r,o,a,n){"string"==typeof e&&(e=[[null,e,void 0]]);var i={};if(o)for(var l=0;l<this.length;l++){var f=this[l][0];null!=f&&(i[f]=!0)}for(var p=0;p<e.length;p++){var s=[].concat(e[p]);o&&i[s[0]]||(void 0!==n&&(void 0===s[5]||(s[1]="@layer".concat(s[5].length>0?" ".concat(s[5]):""," {").concat(s[1],"}")),s[5]=n),r&&(s[2]&&(s[1]="@media ".concat(s[2]," {").concat(s[1],"}")),s[2]=r),a&&(s[4]?(s[1]="@supports (".concat(s[4],") {").concat(s[1],"}"),s[4]=a):s[4]="".concat(a)),t.push(s))}},t}},601(e){e.exports=function(e){return e[1]}},72(e){var t=[];function r(e){for(var r=-1,o=0;o<t.length;o++)if(t[o].identifier===e){r=o;break}return r}function o(e,o){for(var a={},n=[],i=0;i<e.length;i++){var l=e[i],f=o.base?l[0]+o.base:l[0],p=a[f]||0,s="".concat(f," ").concat(p);a[f]=p+1;var c=r(s),d={css:l[1],media:l[2],sourceMap:l[3],supports:l[4],layer:l[5]};if(-1!==c)t[c].references++,t[c].updater(d);else{var k=function(e,t){var r=t.domAPI(t);return r.update(e),function(t){t?(t.css!==e.css||t.media!==e.media||t.sourceMap!==e.sourceMap||t.supports!==e.supports||t.layer!==e.layer)&&r.update(e=t):r.remove()}}(d,o);o.byIndex=i,t.splice(i,0,{identifier:s,updater:k,references:1})}n.push(s)}return n}e.exports=function(e,a){var n=o(e=e||[],a=a||{});return function(e){e=e||[];for(var i=0;i<n.length;i++){var l=r(n[i]);t[l].references--}for(var f=o(e,a),p=0;p<n.length;p++){var s=r(n[p]);0===t[s].references&&(t[s].updater(),t.splice(s,1))}n=f}}},659(e){var t={};e.exports=function(e,r){var o=function(e){if(void 0===t[e]){var r=document.querySelector(e);if(window.HTMLIFrameElement&&r instanceof window.HTMLIFrameElement)try{r=r.contentDocument.head}catch(e){r=null}t[e]=r}return t[e]}(e);if(!o)throw Error("Couldn't find a style target. This probably means that the value for the 'insert' parameter is invalid.");o.appendChild(r)}},540(e){e.exports=function(e){var t=document.createElement("style");return e.setAttributes(t,e.attributes),e.insert(t,e.options),t}},56(e,t,r){e.exports=function(e){var t=r.nc;t&&e.setAttribute("nonce",t)}},825(e){e.exports=function(e){if("u"<typeof document)return{update:function(){},remove:function(){}};var t=e.insertStyleElement(e);return{update:function(r){var o,a,n;o="",r.supports&&(o+="@supports (".concat(r.supports,") {")),r.media&&(o+="@media ".concat(r.media," {")),(a=void 0!==r.layer)&&(o+="@layer".concat(r.layer.length>0?" ".concat(r.layer):""," {")),o+=r.css,a&&(o+="}"),r.media&&(o+="}"),r.supports&&(o+="}"),(n=r.sourceMap)&&"u">typeof btoa&&(o+="\n/*# sourceMappingURL=data:application/json;base64,".concat(btoa(unescape(encodeURIComponent(JSON.stringify(n))))," */")),e.styleTagTransform(o,t,e.options)},remove:function(){var e;null===(e=t).parentNode||e.parentNode.removeChild(e)}}}},113(e){e.exports=function(e,t){if(t.styleSheet)t.styleSheet.cssText=e;else{for(;t.firstChild;)t.removeChild(t.firstChild);t.appendChild(document.createTextNode(e))}}},681(e,t,r){var o=r(72),a=r.n(o),n=r(825),i=r.n(n),l=r(659),f=r.n(l),p=r(56),s=r.n(p),c=r(540),d=r.n(c),k=r(113),u=r.n(k),h=r(880),b={};b.styleTagTransform=u(),b.setAttributes=s(),b.insert=f().bind(null,"head"),b.domAPI=i(),b.insertStyleElement=d(),a()(h.A,b),h.A&&h.A.locals&&h.A.locals;var g=r(646),m={};m.styleTagTransform=u(),m.setAttributes=s(),m.insert=f().bind(null,"head"),m.domAPI=i(),m.insertStyleElement=d(),a()(g.A,m),g.A&&g.A.locals&&g.A.locals}}]);