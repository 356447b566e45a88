package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	decoder "k8s.io/apimachinery/pkg/util/yaml"
	security "k8s.io/pod-security-admission/api"
	restricted "k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"
)

// release is what a chart rendered.
type release struct {
	objects     []runtime.Object
	deployments []*apps.Deployment
	services    []*core.Service
	budgets     []*policy.PodDisruptionBudget
	monitors    []*monitoring.ServiceMonitor
	config      string
}

// read decodes every manifest into its type; a field that the type does not have is a fault.
func read(manifests []byte) (*release, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{core.AddToScheme, apps.AddToScheme, policy.AddToScheme, monitoring.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	strict := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	r := &release{}
	documents := decoder.NewYAMLReader(bufio.NewReader(bytes.NewReader(manifests)))
	for {
		text, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return r, nil
		}
		if err != nil {
			return nil, err
		}
		var anything any
		if err := yaml.Unmarshal(text, &anything); err != nil {
			return nil, err
		}
		if anything == nil { // comments alone
			continue
		}
		object, kind, err := strict.Decode(text, nil, nil)
		if err != nil {
			return nil, fmt.Errorf("%w\n%s", err, bytes.TrimSpace(text))
		}
		r.objects = append(r.objects, object)
		switch o := object.(type) {
		case *apps.Deployment:
			r.deployments = append(r.deployments, o)
		case *core.Service:
			r.services = append(r.services, o)
		case *policy.PodDisruptionBudget:
			r.budgets = append(r.budgets, o)
		case *monitoring.ServiceMonitor:
			r.monitors = append(r.monitors, o)
		case *core.ConfigMap:
			if text, ok := o.Data["postroom.yaml"]; ok {
				r.config = text
			}
		case *core.ServiceAccount, *monitoring.PrometheusRule:
		default:
			return nil, fmt.Errorf("nobody expects a %s", kind)
		}
	}
}

// judge tells what is wrong with the manifests together.
func (r *release) judge(program string) error {
	timeout, err := effective(program, r.config)
	if err != nil {
		return err
	}
	if len(r.deployments) == 0 || len(r.services) == 0 {
		return errors.New("there is no Deployment, or no Service")
	}
	standard, err := restricted.NewEvaluator(restricted.DefaultChecks(), nil)
	if err != nil {
		return err
	}
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	for _, d := range r.deployments {
		pod := &d.Spec.Template
		for _, verdict := range standard.EvaluatePod(security.LevelVersion{Level: security.LevelRestricted, Version: security.LatestVersion()}, &pod.ObjectMeta, &pod.Spec) {
			if !verdict.Allowed {
				fault("%s: not restricted: %s (%s)", d.Name, verdict.ForbiddenReason, verdict.ForbiddenDetail)
			}
		}
		if !selects(d.Spec.Selector, pod.Labels) {
			fault("%s does not select its own pods", d.Name)
		}
		c := pod.Spec.Containers[0]
		wait := int64(0)
		if c.Lifecycle != nil {
			wait = c.Lifecycle.PreStop.Sleep.Seconds
		}
		// http.Server is given 5 s beyond the time-out.
		if grace := time.Duration(*pod.Spec.TerminationGracePeriodSeconds-wait) * time.Second; grace < timeout+5*time.Second {
			fault("%s: of its grace %s are left after preStop, and worker.shutdown_timeout is %s", d.Name, grace, timeout)
		}
		if c.StartupProbe == nil || c.LivenessProbe == nil || c.ReadinessProbe == nil {
			fault("%s: a probe is missing", d.Name)
		}
		if !*c.SecurityContext.ReadOnlyRootFilesystem {
			fault("%s: may write to its root", d.Name)
		}
	}
	for _, s := range r.services {
		if n := r.pods(labels.SelectorFromSet(s.Spec.Selector)); n == 0 {
			fault("the Service %s selects no pods", s.Name)
		}
	}
	for _, b := range r.budgets {
		selector, err := meta.LabelSelectorAsSelector(b.Spec.Selector)
		if err != nil {
			return err
		}
		if n := r.pods(selector); n != 1 {
			fault("the PodDisruptionBudget %s covers %d Deployments", b.Name, n)
		}
	}
	for _, m := range r.monitors {
		found := 0
		for _, s := range r.services {
			if selects(&m.Spec.Selector, s.Labels) {
				found++
				if n := r.pods(labels.SelectorFromSet(s.Spec.Selector)); n != len(r.deployments) {
					fault("the ServiceMonitor %s finds the pods of %d Deployments, of %d", m.Name, n, len(r.deployments))
				}
			}
		}
		if found != 1 {
			fault("the ServiceMonitor %s finds %d Services: with two, each pod is scraped twice", m.Name, found)
		}
	}
	return errors.Join(faults...)
}

// pods counts the Deployments whose pods are selected.
func (r *release) pods(selector labels.Selector) int {
	n := 0
	for _, d := range r.deployments {
		if selector.Matches(labels.Set(d.Spec.Template.Labels)) {
			n++
		}
	}
	return n
}

func selects(s *meta.LabelSelector, set map[string]string) bool {
	selector, err := meta.LabelSelectorAsSelector(s)
	return err == nil && selector.Matches(labels.Set(set))
}

// effective has the program check a configuration, and gives the time-out that is in force.
func effective(program, config string) (time.Duration, error) {
	folder, err := os.MkdirTemp("", "deploy")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(folder)
	path := filepath.Join(folder, "postroom.yaml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return 0, err
	}
	c := exec.Command(program, "serve", "--config", path, "--check-config")
	var settings struct{ Provider any }
	if err := yaml.Unmarshal([]byte(config), &settings); err != nil {
		return 0, err
	}
	if settings.Provider != nil {
		c.Env = append(os.Environ(), "POSTROOM_PROVIDER_SMTP_AUTH_PASSWORD=from the Secret")
	}
	out, err := c.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return 0, fmt.Errorf("serve --check-config: %s", exit.Stderr)
		}
		return 0, err
	}
	var printed struct {
		Worker struct {
			ShutdownTimeout string `json:"shutdown_timeout"`
		} `json:"worker"`
	}
	if err := yaml.Unmarshal(out, &printed); err != nil {
		return 0, err
	}
	return time.ParseDuration(printed.Worker.ShutdownTimeout)
}
