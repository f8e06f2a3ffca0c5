"use strict";(self.rspackChunkfrozenkit=self.rspackChunkfrozenkit||[]).push([[700],{646(e,t,o){var r=o(601),n=o.n(r),a=o(314),i=(o.n(a))()(n());i.push([e.id,`/* The course panel */

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
  outline: 3px solid #56b4e9;
  outline-offset: 1px;
}

.fk-bar button[aria-disabled] {
  opacity: 0.65;
  cursor: default;
}

.fk-panel .fk-go,
.fk-bar .fk-call,
.fk-panel .fk-call {
  background: #005a8f;
  border-color: #005a8f;
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
  background: #00446d;
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
  border-left-color: #0072b2;
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
  color: #00664a;
}

[data-jp-theme-light="false"] .fk-dot.fk-done,
[data-jp-theme-light="false"] .fk-right {
  color: #3fd0a4;
}

.fk-late {
  color: #a04000;
}

[data-jp-theme-light="false"] .fk-late {
  color: #ffa766;
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
  border-left: 4px solid #e69f00;
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
  border-left: 5px solid #e69f00 !important;
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
  background: #005a8f;
  border-color: #005a8f;
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
`,""]),o.d(t,{},{A:i})},314(e){e.exports=function(e){var t=[];return t.toString=function(){return this.map(function(t){var o="",r=void 0!==t[5];return t[4]&&(o+="@supports (".concat(t[4],") {")),t[2]&&(o+="@media ".concat(t[2]," {")),r&&(o+="@layer".concat(t[5].length>0?" ".concat(t[5]):""," {")),o+=e(t),r&&(o+="}"),t[2]&&(o+="}"),t[4]&&(o+="}"),o}).join("")},t.i=function(e,o,r,n,a){"string"==typeof e&&(e=[[null,e,void 0]]);var i={};if(r)for(var p=0;p<this.length;p++){var l=this[p][0];null!=l&&(i[l]=!0)}for(var f=0;f<e.length;f++){var c=[].concat(e[f]);r&&i[c[0]]||(void 0!==a&&(void 0===c[5]||(c[1]="@layer".concat(c[5].length>0?" ".concat(c[5]):""," {").concat(c[1],"}")),c[5]=a),o&&(c[2]&&(c[1]="@media ".concat(c[2]," {").concat(c[1],"}")),c[2]=o),n&&(c[4]?(c[1]="@supports (".concat(c[4],") {").concat(c[1],"}"),c[4]=n):c[4]="".concat(n)),t.push(c))}},t}},601(e){e.exports=function(e){return e[1]}},72(e){var t=[];function o(e){for(var o=-1,r=0;r<t.length;r++)if(t[r].identifier===e){o=r;break}return o}function r(e,r){for(var n={},a=[],i=0;i<e.length;i++){var p=e[i],l=r.base?p[0]+r.base:p[0],f=n[l]||0,c="".concat(l," ").concat(f);n[l]=f+1;var s=o(c),u={css:p[1],media:p[2],sourceMap:p[3],supports:p[4],layer:p[5]};if(-1!==s)t[s].references++,t[s].updater(u);else{var d=function(e,t){var o=t.domAPI(t);return o.update(e),function(t){t?(t.css!==e.css||t.media!==e.media||t.sourceMap!==e.sourceMap||t.supports!==e.supports||t.layer!==e.layer)&&o.update(e=t):o.remove()}}(u,r);r.byIndex=i,t.splice(i,0,{identifier:c,updater:d,references:1})}a.push(c)}return a}e.exports=function(e,n){var a=r(e=e||[],n=n||{});return function(e){e=e||[];for(var i=0;i<a.length;i++){var p=o(a[i]);t[p].references--}for(var l=r(e,n),f=0;f<a.length;f++){var c=o(a[f]);0===t[c].references&&(t[c].updater(),t.splice(c,1))}a=l}}},659(e){var t={};e.exports=function(e,o){var r=function(e){if(void 0===t[e]){var o=document.querySelector(e);if(window.HTMLIFrameElement&&o instanceof window.HTMLIFrameElement)try{o=o.contentDocument.head}catch(e){o=null}t[e]=o}return t[e]}(e);if(!r)throw Error("Couldn't find a style target. This probably means that the value for the 'insert' parameter is invalid.");r.appendChild(o)}},540(e){e.exports=function(e){var t=document.createElement("style");return e.setAttributes(t,e.attributes),e.insert(t,e.options),t}},56(e,t,o){e.exports=function(e){var t=o.nc;t&&e.setAttribute("nonce",t)}},825(e){e.exports=function(e){if("u"<typeof document)return{update:function(){},remove:function(){}};var t=e.insertStyleElement(e);return{update:function(o){var r,n,a;r="",o.supports&&(r+="@supports (".concat(o.supports,") {")),o.media&&(r+="@media ".concat(o.media," {")),(n=void 0!==o.layer)&&(r+="@layer".concat(o.layer.length>0?" ".concat(o.layer):""," {")),r+=o.css,n&&(r+="}"),o.media&&(r+="}"),o.supports&&(r+="}"),(a=o.sourceMap)&&"u">typeof btoa&&(r+="\n/*# sourceMappingURL=data:application/json;base64,".concat(btoa(unescape(encodeURIComponent(JSON.stringify(a))))," */")),e.styleTagTransform(r,t,e.options)},remove:function(){var e;null===(e=t).parentNode||e.parentNode.removeChild(e)}}}},113(e){e.exports=function(e,t){if(t.styleSheet)t.styleSheet.cssText=e;else{for(;t.firstChild;)t.removeChild(t.firstChild);t.appendChild(document.createTextNode(e))}}},959(e,t,o){var r=o(72),n=o.n(r),a=o(825),i=o.n(a),p=o(659),l=o.n(p),f=o(56),c=o.n(f),s=o(540),u=o.n(s),d=o(113),k=o.n(d),b=o(646),h={};h.styleTagTransform=k(),h.setAttributes=c(),h.insert=l().bind(null,"head"),h.domAPI=i(),h.insertStyleElement=u(),n()(b.A,h),b.A&&b.A.locals&&b.A.locals}}]);