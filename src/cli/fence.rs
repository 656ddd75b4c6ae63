//! `resurgam fence`.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};

use super::ManifestFormat;
use crate::isolation::list;
use crate::isolation::policies::{self, Policy};

const AFTER_HELP: &str = "\
Applied, in the order printed:
  resurgam fence | kubectl apply --server-side -f -

As static manifests, on each machine that runs an API server of 1.37 or later (1.36: with the feature gate \
ManifestBasedAdmissionControlConfig), which nobody can then take away through the API:
  resurgam fence --static > /etc/kubernetes/resurgam/fence.yaml
and in the file that kube-apiserver's --admission-control-config-file names:
  apiVersion: apiserver.config.k8s.io/v1
  kind: AdmissionConfiguration
  plugins:
  - name: ValidatingAdmissionPolicy
    configuration:
      apiVersion: apiserver.config.k8s.io/v1
      kind: ValidatingAdmissionPolicyConfiguration
      staticManifestsDir: /etc/kubernetes/resurgam
A changed file is taken up without a restart. Static manifests take no parameter, so the guards of accounts, rights, volumes and \
the installation stay in the API; one policy that is only static keeps them there.";

/// Arguments of `resurgam fence`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct Args {
    /// As static manifests (KEP-5793): named as the API server wants them in a folder of its own.
    #[arg(long = "static")]
    as_static: bool,

    /// Output format.
    #[arg(short, long, value_enum, default_value_t = ManifestFormat::Yaml)]
    output: ManifestFormat,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let manifests = manifests(args.as_static)?;
    match args.output {
        ManifestFormat::Yaml => {
            for manifest in manifests {
                anstream::println!("---\n{}", serde_yaml::to_string(&manifest)?.trim_end());
            }
        }
        ManifestFormat::Json => {
            let list = json!({"apiVersion": "v1", "kind": "List", "items": manifests});
            anstream::println!("{}", serde_json::to_string_pretty(&list)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the objects in the order in which they must be applied: without the lists, some guards refuse everything.
fn manifests(as_static: bool) -> Result<Vec<Value>> {
    let (first, all) =
        if as_static { (Vec::new(), policies::all_static()?) } else { (list::empty(), policies::all()?) };
    let mut manifests = first.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
    for Policy { policy, binding } in all {
        manifests.extend([serde_json::to_value(policy)?, serde_json::to_value(binding)?]);
    }
    Ok(manifests)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(as_static: bool) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let all = manifests(as_static).unwrap();
        all.iter().map(|m| (text(&m["kind"]), text(&m["metadata"]["name"]))).collect()
    }

    #[test]
    fn lists_precede_guards_and_each_policy_has_its_binding() {
        let all = names(false);
        for (list, name) in all.iter().zip(list::CONFIG_MAPS) {
            assert_eq!(*list, ("ConfigMap".to_owned(), name.to_owned()));
        }
        assert_eq!(all.len(), 2 + 2 * policies::all().unwrap().len());
        let static_ = names(true);
        assert!(static_.iter().all(|(kind, name)| kind != "ConfigMap" && name.ends_with(".static.k8s.io")));
    }
}
