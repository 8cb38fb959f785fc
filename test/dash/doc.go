// Package dash has the test of the page's terminal and logs in a browser, on a node that
// runs containers. What the page shows of clusters of any kind is tested in web/test/e2e.mjs.
package dash
