//! Time and allocations of comparing an estate with its baseline, at 10, 100 and 500 namespaces of ten objects: `cargo bench --bench baseline`.

use divan::{AllocProfiler, Bencher, black_box};
use resurgam_core::baseline::compare::Scope;
use resurgam_core::baseline::{Baseline, Marks, compare, observe};
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

const NAMESPACES: [usize; 3] = [10, 100, 500];

fn main() {
    divan::main();
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|id| format!("n{id}")).collect()
}

/// Ten objects in each namespace, the namespace included.
fn estate(count: usize) -> Vec<Value> {
    let container = json!({"name": "main", "image": "registry.example/web:1", "command": ["serve"], "env": [{"name": "MODE", "value": "live"}]});
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}});
    let of = |namespace: String| {
        let mut all = vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})];
        all.extend((0..3).map(|id| {
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": format!("web-{id}"), "namespace": namespace},
                "spec": {"replicas": 2, "template": template}})
        }));
        all.extend((0..6).map(|id| {
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("c-{id}"), "namespace": namespace},
                "data": {"settings": "x".repeat(500)}})
        }));
        all
    };
    names(count).into_iter().flat_map(of).collect()
}

#[divan::bench(args = NAMESPACES)]
fn unchanged_estate(bencher: Bencher<'_, '_>, count: usize) {
    let namespaces = names(count);
    let baseline = json!({
        "baseline": resurgam_core::baseline::FORMAT, "capturedAt": "2026-01-01T00:00:00Z", "source": "Cluster", "namespaces": namespaces,
        "outside": true, "kinds": [], "objects": observe(estate(count), &Marks::default()).objects,
    });
    let baseline: Baseline = serde_json::from_value(baseline).unwrap_or_else(|error| unreachable!("{error}"));
    let scope = Scope { namespaces: &namespaces, ..Scope::default() };
    bencher.with_inputs(|| estate(count)).bench_values(|raw| {
        let outcome = compare(black_box(&baseline), observe(raw, &Marks::default()), &scope);
        assert!(outcome.differences.is_empty());
        outcome.compared
    });
}
