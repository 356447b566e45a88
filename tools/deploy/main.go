// Command deploy judges what is below deploy/ by the programs and types that it is written for: helm lints the chart and renders it with each file of its
// folder ci, every manifest is decoded strictly into the type of Kubernetes or of the Prometheus operator that it says it is, pods are held against
// Kubernetes's own "restricted" standard, and the compose file is loaded by compose's own library. What a cluster or Docker alone could tell it does not.
//
//	deploy ROOT POSTROOM: the root of the repository, and the built program, which checks the configurations
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: deploy ROOT POSTROOM")
		os.Exit(2)
	}
	root, program := os.Args[1], os.Args[2]
	err := errors.Join(chart(filepath.Join(root, "deploy/helm/postroom"), program), composed(filepath.Join(root, "deploy/compose/compose.yaml")))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// chart lints and renders the chart with each of the values it is tested with.
func chart(folder, program string) error {
	files, err := filepath.Glob(filepath.Join(folder, "ci", "*-values.yaml"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("%s: no ci/*-values.yaml: %v", folder, err)
	}
	var faults []error
	for _, values := range files {
		name := filepath.Base(values)
		if out, err := helm("lint", "--strict", folder, "--values", values); err != nil {
			faults = append(faults, fmt.Errorf("%s: helm lint: %w\n%s", name, err, out))
			continue
		}
		out, err := helm("template", "mail", folder, "--namespace", "mail", "--values", values)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: helm template: %w\n%s", name, err, out))
			continue
		}
		r, err := read(out)
		if err == nil {
			err = r.judge(program)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", name, err))
			continue
		}
		fmt.Printf("%s: %d manifests\n", name, len(r.objects))
	}
	for _, wrong := range refused {
		out, err := helm(append([]string{"template", "mail", folder, "--values", files[0]}, wrong...)...)
		if err == nil || !strings.Contains(string(out)+err.Error(), "values don't meet the specifications of the schema") {
			faults = append(faults, fmt.Errorf("the schema takes %s", strings.Join(wrong, " ")))
		}
	}
	return errors.Join(faults...)
}

// refused are values that the schema has to refuse.
var refused = [][]string{
	{"--set", "image.repository="},
	{"--set", "replica=3"},
	{"--set", "graceMarginSeconds=0"},
	{"--set", "config.worker.shutdown_timeout=1d"},
	{"--set", "config.worker.shutdown_timeout=30"},
	{"--set", "config.http.listen=127.0.0.1:8080"},
	{"--set", "config.http.listen=:80"},
	{"--set", "config.redis.url=redis://:password@redis:6379"},
	{"--set", "config.secrets.keys={a}"},
	{"--set", "config.provider.smtp.auth.password=secret"},
	{"--set", "config.provider.microsoft365.client_secret=secret"},
	{"--set", "secretFiles.POSTROOM_REDIS_URL=redis"},
	{"--set", "secretFiles.POSTROOM_REDIS_URL_FILE=null"},
}

// helm runs the helm of this module.
func helm(arguments ...string) ([]byte, error) {
	c := exec.Command("go", append([]string{"tool", "helm"}, arguments...)...)
	var words bytes.Buffer
	c.Stderr = &words
	out, err := c.Output()
	if err != nil {
		return append(out, words.Bytes()...), err
	}
	return out, nil
}

// composed loads a compose file as docker compose does, and looks where its ports and files are.
func composed(path string) error {
	options, err := cli.NewProjectOptions([]string{path})
	if err != nil {
		return err
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	var faults []error
	for _, s := range project.Services {
		for _, p := range s.Ports {
			if p.HostIP != "127.0.0.1" {
				faults = append(faults, fmt.Errorf("compose: %s opens port %s on %q, not on 127.0.0.1", s.Name, p.Published, p.HostIP))
			}
		}
		for _, v := range s.Volumes {
			if v.Type != "bind" {
				continue
			}
			if info, err := os.Stat(v.Source); err != nil || !info.Mode().IsRegular() {
				faults = append(faults, fmt.Errorf("compose: %s mounts %s, which is no file", s.Name, v.Source))
			}
		}
	}
	fmt.Printf("compose.yaml: %d services\n", len(project.Services))
	return errors.Join(faults...)
}
