# Keelson: make up and make test do everything.

GO      ?= go
BIN     := bin/keelson
# The same for all commands, so that packages are compiled once. With the tag,
# equal sets of managed fields share their memory.
export CGO_ENABLED := 0
export GOFLAGS     := -trimpath -tags=fieldsv1string
# The version of the built-in kubectl.
KUBECTL := k8s.io/component-base/version
# The version in the name by which the built-in kubectl's requests go.
AGENT   := k8s.io/client-go/pkg/version
LDFLAGS := -s -w -X $(AGENT).gitVersion=v1.37.2 -X $(KUBECTL).gitVersion=v1.37.2 -X $(KUBECTL).gitMajor=1 -X $(KUBECTL).gitMinor=37
# The build in /version and kubectl version; the date is the commit's, so that builds are reproducible.
COMMIT  := $(shell git rev-parse HEAD 2>/dev/null)
ifneq ($(COMMIT),)
LDFLAGS += -X $(AGENT).gitCommit=$(COMMIT) -X $(KUBECTL).gitCommit=$(COMMIT) -X $(KUBECTL).gitTreeState=$(if $(shell git status --porcelain 2>/dev/null | head -1),dirty,clean) \
	-X $(KUBECTL).buildDate=$(shell TZ=UTC git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd)
endif
# The Debian packages that a node needs.
PACKAGES := containerd runc containernetworking-plugins nftables iproute2 conntrack busybox-static
# The further packages that tests need: a web server for an image, etcd, a file system with quota groups, a message bus, and a browser.
TEST_PACKAGES := nginx etcd-server btrfs-progs dbus-daemon chromium
SUDO    := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# Go 1.21 or later downloads the version of go.mod by itself. Without one, Debian's Go downloads it as a module.
export GOTOOLCHAIN := $(or $(GOTOOLCHAIN),auto)
ifeq ($(shell go version 2>/dev/null | grep -E 'go(1\.(2[1-9]|[3-9][0-9])|[2-9])'),)
export PATH := $(CURDIR)/bin/toolchain/bin:$(PATH)
images: bin/toolchain/bin/go
endif

.PHONY: build up down reset test unit bench bench-compare conformance fuzz linearizability soak vet packages test-packages clean

# Runs a go build -v, and prints the number of compiled packages in place of their names.
counted = { $(1) 2>&1; echo "exit $$?"; } | awk '/^exit [0-9]+$$/ { code = $$2; next } \
	/^[^ ]+$$/ && !/:/ { if (++n % 100 == 0) { print "  compiled " n " packages"; fflush() } next } { print; fflush() } END { exit code }'

build: $(BIN)

.PHONY: $(BIN)
$(BIN): images page
	@echo "building $(BIN): some seconds, the first time some minutes"
	@$(call counted,$(GO) build -v -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/keelson)

# The images that the binary carries.
.PHONY: images
images:
	@echo "building the images"; for i in pause demo; do $(GO) build -ldflags '$(LDFLAGS)' -o internal/node/images/bin/$$i ./cmd/keelson-images/$$i; done

# The page of keelson dash, which the binary carries. npm is Debian's where there is none.
PAGE := internal/dash/page/dist/index.html
.PHONY: page npm
page: $(PAGE)
$(PAGE): web/node_modules/.package-lock.json web/index.html web/vite.config.js web/tsconfig.json $(shell find web/src -type f)
	@echo "building the page"; cd web && node_modules/.bin/vite build --logLevel warn
web/node_modules/.package-lock.json: web/package-lock.json $(if $(shell command -v npm),,npm)
	@echo "getting the page's packages"; cd web && npm ci --ignore-scripts --no-audit --no-fund --loglevel error && touch node_modules/.package-lock.json
npm:
	$(call install,nodejs npm)

# Installs the packages that are missing. No service is started.
define install
	@missing=; for p in $(1); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then echo "installing$$missing"; \
		[ -e /usr/sbin/policy-rc.d ] || { printf '#!/bin/sh\nexit 101\n' | $(SUDO) tee /usr/sbin/policy-rc.d >/dev/null; $(SUDO) chmod +x /usr/sbin/policy-rc.d; ours=1; }; \
		$(SUDO) apt-get update -q && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing; status=$$?; \
		[ -z "$$ours" ] || $(SUDO) rm -f /usr/sbin/policy-rc.d; exit $$status; fi
endef

# Makes archives and Debian packages, with checksums, in dist/.
VERSION ?= 1.37.2+keelson.$(shell git rev-list --count HEAD)
ARCHITECTURES ?= amd64 arm64
.PHONY: release
release:
	@mkdir -p dist/bin; trap '$(MAKE) -s images' EXIT; for a in $(ARCHITECTURES); do echo "building for $$a"; \
		$(MAKE) -s build GOARCH=$$a BIN=dist/bin/keelson-$$a || exit 1; done
	cd release && $(GO) build -o ../dist/bin/release .
	dist/bin/release -root . -version '$(VERSION)' -date "$$(TZ=UTC git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd)" \
		-depends '$(PACKAGES)' $(foreach a,$(ARCHITECTURES),$(a)=dist/bin/keelson-$(a))
	@cat dist/SHA256SUMS

# The toolchain of go.mod from the module proxy. A Go before 1.21 unpacks it like any module: without go.mod files and
# without executable programs.
GO_VERSION := $(shell sed -n 's/^toolchain go//p' go.mod)
bin/toolchain/bin/go:
	@echo "There is no Go of at least 1.21: getting Go $(GO_VERSION)"
	$(call install,golang-go)
	@mkdir -p bin; module=golang.org/toolchain@v0.0.1-go$(GO_VERSION).linux-$$(dpkg --print-architecture); \
	dir=$$(cd /tmp && GOFLAGS= go mod download -json $$module | sed -n 's/.*"Dir": "\(.*\)".*/\1/p'); \
	[ -n "$$dir" ] || { echo "Go $(GO_VERSION) could not be got from the module proxy: install Go 1.21 or later from https://go.dev/dl and run make again" >&2; exit 1; }; \
	chmod -R u+w "$$dir" && chmod +x "$$dir"/bin/* "$$dir"/pkg/tool/*/* && \
	find "$$dir/src" -name _go.mod | while read -r f; do cp "$$f" "$${f%_go.mod}go.mod"; done && \
	ln -sfn "$$dir" bin/toolchain

packages:
	$(call install,$(PACKAGES))

test-packages: packages
	$(call install,$(TEST_PACKAGES))

up: packages build
	$(SUDO) $(BIN) up

down: build
	$(SUDO) $(BIN) down

reset: build
	$(SUDO) $(BIN) reset

# Runs go vet and the linters of .golangci.yml, staticcheck among them: five minutes of processor time the first time,
# less afterwards for packages that have not changed.
GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
vet: images
	$(GO) vet ./...
	$(GO) -C test/envtest vet ./...
	$(GO) -C test/ecosystem vet ./...
	$(GO) -C test/cloud vet ./...
	$(GO) -C test/gateway vet ./...
	$(GO) run $(GOLANGCI) run --timeout 30m ./...
	@unformatted=$$(gofmt -l bench cmd internal test testcluster); [ -z "$$unformatted" ] || { echo "gofmt wants to change: $$unformatted"; exit 1; }

unit: images page
	$(GO) test -timeout 10m ./...

test: test-packages build vet unit test-envtest test-dns test-csi test-ecosystem test-cloud test-gateway test-dash

# Checks the page's types, runs its unit tests, and uses it in a browser, with keelson dash and a cluster of simulated nodes.
.PHONY: test-dash bench-dash
test-dash: test-packages build
	cd web && node_modules/.bin/tsc && node test/unit.mjs && KEELSON=$(CURDIR)/$(BIN) node --test test/e2e.mjs

# Measures the page with 50,000 pods on 5,000 nodes, in a browser that is traced.
bench-dash: test-packages build
	cd web && KEELSON=$(CURDIR)/$(BIN) node bench/bench.mjs

# Compares the answers of the built-in name server with CoreDNS's, in a module of its own.
.PHONY: test-dns
test-dns: images
	$(GO) -C test/dnsoracle test ./...

# The CSI project's sanity suite against the local driver, and its sidecars against a cluster, in a module of its own.
.PHONY: test-csi
test-csi: images
	$(GO) -C test/csi test ./...

# Runs the Vertical Pod Autoscaler, an adapter of custom and external metrics, and the README's tour on simulated nodes,
# and metrics-server on one that runs containers, against the binary, in a module of its own.
.PHONY: test-ecosystem
test-ecosystem: build
	KEELSON=$(CURDIR)/$(BIN) $(GO) -C test/ecosystem test ./...

# Runs a cloud controller manager of k8s.io/cloud-provider, in a module of its own.
.PHONY: test-cloud
test-cloud: images
	$(GO) -C test/cloud test ./...

# Reaches Services through the Gateway API, with its own definitions and a small controller that drives nginx, in a module of
# its own.
.PHONY: test-gateway
test-gateway: test-packages images
	$(GO) -C test/gateway test ./...

# Runs controller-runtime's envtest on keelson, in a module of its own.
.PHONY: test-envtest bench-envtest
test-envtest: build
	$(BIN) envtest bin/envtest
	KUBEBUILDER_ASSETS=$(CURDIR)/bin/envtest $(GO) -C test/envtest test ./...

# Measures the start and end of an envtest suite: with keelson, and with upstream's generic server and etcd.
bench-envtest: test-packages build
	$(BIN) envtest bin/envtest
	cd bench && $(GO) build -o ../bin/bench .
	mkdir -p bin/envtest-peer && ln -sf ../bench bin/envtest-peer/kube-apiserver && ln -sf /usr/bin/etcd bin/envtest-peer/etcd
	@for a in envtest envtest-peer envtest envtest-peer; do echo "$$a"; \
		KUBEBUILDER_ASSETS=$(CURDIR)/bin/$$a $(GO) -C test/envtest test -run '^$$' -bench Start -benchtime 10x . | grep Benchmark || exit 1; done

bench:
	$(GO) test -run '^$$' -bench . -benchtime 3x ./testcluster
	$(GO) test -run '^$$' -bench 'Pod|Deployment' -skip Hundred -benchtime 10x ./test/node
	$(GO) test -run '^$$' -bench 'Hundred|Idle' -benchtime 3x -timeout 30m ./test/node
	$(GO) test -run '^$$' -bench . ./internal/store/... ./internal/objectjson ./internal/dash
	$(GO) test -run '^$$' -bench . -benchtime 5x ./internal/network/proxy ./internal/network/policy
	$(GO) test -run '^$$' -bench . -benchtime 50x ./test/network
	$(GO) test -run '^$$' -bench 'Create|Dash' ./internal/apiserver/controlplane
	$(GO) test -run '^$$' -bench OpenAPIV2 ./internal/apiserver
	$(GO) test -run '^$$' -bench 1000CRDs -benchtime 1x ./internal/apiserver/controlplane
	$(GO) test -run '^$$' -bench . -benchtime 1x ./test/autoscaling

# Prints how many of upstream's conformance tests pass, by SIG, and lists those that do not: in clusters of the tests' own, or
# in that of KUBECONFIG=… (add CONTAINERS=-containers if its nodes run containers).
conformance: test-packages images
	@{ $(GO) test -count=1 -timeout 30m -run TestConformance -v ./test/conformance -args -report $(CURDIR)/docs/conformance-not-passing.txt \
		$(if $(KUBECONFIG),-kubeconfig $(KUBECONFIG)) $(CONTAINERS); echo "exit $$?"; } | \
		awk '/^exit [0-9]+$$/ { code = $$2; next } /^ *(--- FAIL|suite_test.go.*\/[0-9]+$$|[a-z]*_test.go|FAIL|ok)/ { print; fflush() } END { exit code }'

# Fuzzes the parsers of untrusted input, each for FUZZTIME.
FUZZTIME ?= 1m
FUZZ := FuzzRequest:apiserver/controlplane FuzzSelectors:apiserver/controlplane FuzzWebhook:apiserver/controlplane FuzzContinue:apiserver FuzzReview:apiserver/token \
	FuzzConfiguration:apiserver/authn FuzzPolicy:apiserver/auditing FuzzMerge:apiserver/certs FuzzKinds:api/catalogue \
	FuzzDecode:objectjson FuzzRecord:store/embedded FuzzUndo:store/embedded FuzzDamaged:store/embedded FuzzRead:node/logs
fuzz: images
	@for f in $(FUZZ); do echo "$${f%:*}"; $(GO) test -run '^$$' -fuzz "^$${f%:*}$$" -fuzztime $(FUZZTIME) ./internal/$${f#*:} || exit 1; done

# Checks for LINEARIZABILITY that clients see one order of writes while servers are killed.
LINEARIZABILITY ?= 5m
linearizability: images
	$(GO) test -timeout 1h -v ./test/linearizability -args -for $(LINEARIZABILITY)

# Runs a server with WATCHES watches and WRITERS writers for SOAK: steady memory, no missed events, every request answered.
SOAK    ?= 10m
WATCHES ?= 2000
WRITERS ?= 500
soak: build
	$(GO) test -timeout 2h -count=1 -v ./test/soak -args -keelson $(CURDIR)/$(BIN) -for $(SOAK) -watches $(WATCHES) -writers $(WRITERS)

# Compares the API server with its peer and its limit, which are in a module of their own.
bench-compare: test-packages build
	cd bench && $(GO) build -o ../bin/bench . && ../bin/bench -keelson ../bin/keelson compare

clean:
	rm -rf bin dist web/node_modules web/.cache
	find internal/dash/page/dist -mindepth 1 ! -name .gitignore ! -name absent.html -delete
