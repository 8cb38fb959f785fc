// Package review gives the answers of the reviews of authentication.k8s.io and
// authorization.k8s.io: what an authenticator, an authorizer and a resolver of rules
// say of a token or a user, in the API's types. Package apiserver serves them, which
// decodes the question and has admission see it. It imports no package of Keelson.
package review
