package controlplane

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// TestDescriptions checks that kubectl explain describes every kind and every
// field, at any depth, and that the OpenAPI documents describe every operation.
func TestDescriptions(t *testing.T) {
	c := boot(t, Options{NoDrain: true})
	type definition struct {
		Description string
		Properties  map[string]struct{ Description string }
		GVK         []struct{ Group, Version, Kind string } `json:"x-kubernetes-group-version-kind"`
	}
	described := map[string]bool{}
	for _, g := range c.Catalogue.Groups() {
		for _, v := range g.Versions {
			path := "/openapi/v3/apis/" + g.Name + "/" + v
			if g.Name == "" {
				path = "/openapi/v3/api/" + v
			}
			w := ask(c, "GET", path, "")
			if w.Code != http.StatusOK {
				t.Fatalf("%s: %d %s", path, w.Code, w.Body)
			}
			var doc struct {
				Components struct{ Schemas map[string]definition }
				Paths      map[string]struct{ Get, Post, Put, Patch, Delete *struct{ Description string } }
			}
			if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
				t.Fatal(err)
			}
			for path, p := range doc.Paths {
				for _, operation := range []*struct{ Description string }{p.Get, p.Post, p.Put, p.Patch, p.Delete} {
					if operation != nil && operation.Description == "" {
						t.Errorf("an operation on %s is not described", path)
					}
				}
			}
			for name, d := range doc.Components.Schemas {
				for _, gvk := range d.GVK {
					described[gvk.Group+"/"+gvk.Version+" "+gvk.Kind] = d.Description != ""
				}
				for field, p := range d.Properties {
					if p.Description == "" && !undescribed(name, field) {
						t.Errorf("%s: %s has no description of %s", path, name, field)
					}
				}
			}
		}
	}
	for _, r := range c.Catalogue.Rows() {
		if ok, found := described[r.Group+"/"+r.Version+" "+r.Kind]; !ok {
			t.Errorf("%s is not described (in the document: %t)", r.GVK(), found)
		}
	}
}

// undescribed returns the fields that upstream has no words for either: of the schemas in
// definitions of custom resources, the type of an event, the metadata of one kind.
func undescribed(name, field string) bool {
	return strings.HasSuffix(name, ".WatchEvent") && field == "type" || strings.Contains(name, "JSONSchemaProps") || strings.HasSuffix(name, ".ExternalDocumentation") || strings.HasSuffix(name, ".meta.v1.GroupResource") || strings.Contains(name, "CertificateSigningRequest") && field == "metadata"
}
