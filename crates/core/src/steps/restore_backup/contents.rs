//! What may be in the namespace before a Restore, and after it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::{StepContext, StepProblem, listed};
use super::{RestoreBackupSpec, name, namespace, text};
use crate::baseline::{Marks, Object, group_of, observe};
use crate::engine::StepProgress;

/// Label that Velero puts on whatever it creates, with the name of the Restore.
const RESTORE_LABEL: &str = "velero.io/restore-name";
/// Maximum number of objects in a message.
const LISTED: usize = 8;

/// Returns why nothing may be restored into the namespace. `objects`: everything in it, as read.
///
/// # Errors
/// The step names no namespace; or more is there than Kubernetes and Resurgam put there, and the plan expects.
pub fn before(
    objects: Vec<Value>,
    spec: &RestoreBackupSpec,
    context: &StepContext,
) -> Result<(), StepProblem> {
    let namespace = namespace(spec, &context.namespaces)?;
    let addresses = foreign_addresses(&objects, None);
    let found = Found::new(objects, spec, context);
    let mut strangers: Vec<String> = found.strangers().map(|object| object.key().to_string()).collect();
    strangers.extend(addresses);
    if strangers.is_empty() {
        return Ok(());
    }
    Err(StepProblem::Unusable(format!(
        "namespace {namespace} is not empty, and nothing is restored over what is there: restore into a new namespace; or name under `expected` \
         what belongs there; or have who may repair quarantines/{namespace} delete it. There is {}",
        listed(&strangers, LISTED)
    )))
}

/// What a complete Restore left in the namespace, by one reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Something bears the name of the Restore.
    has_restored: bool,
    /// What does not, and is neither expected nor produced by a controller.
    strangers: BTreeSet<String>,
}

/// Returns what a complete Restore left. `objects`: everything in the namespace, as read.
///
/// # Errors
/// The step names no namespace.
pub fn left(
    objects: Vec<Value>,
    spec: &RestoreBackupSpec,
    context: &StepContext,
) -> Result<Left, StepProblem> {
    namespace(spec, &context.namespaces)?;
    let restore = name(context);
    let is_own = |object: &Value| label(object) == Some(restore.as_str());
    let has_restored = objects.iter().any(is_own);
    let addresses = foreign_addresses(&objects, Some(&restore));
    let found = Found::new(objects, spec, context);
    let strangers = found
        .strangers()
        // Velero adds to the account that is in every namespace, and to no other object.
        .filter(|object| !is_own(&object.content) && !is_default_account(object))
        .map(|object| object.key().to_string())
        .chain(addresses)
        .collect();
    Ok(Left { has_restored, strangers })
}

impl Left {
    /// Returns whether a second reading could show less: kinds are listed at different moments, and an object may seem to have no owner.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        !self.strangers.is_empty()
    }

    /// Returns what both readings show.
    #[must_use]
    pub fn and(self, again: &Self) -> Self {
        let strangers = self.strangers.intersection(&again.strangers).cloned().collect();
        Self { has_restored: self.has_restored || again.has_restored, strangers }
    }

    /// Returns what a complete Restore comes to.
    #[must_use]
    pub fn progress(&self, spec: &RestoreBackupSpec, context: &StepContext) -> StepProgress {
        let restore = name(context);
        let into = namespace(spec, &context.namespaces).unwrap_or_default();
        if !self.has_restored {
            let from = spec.from.as_ref().map_or(into, |from| &from.0);
            return StepProgress::Failed(format!(
                "Restore {restore} is Completed and restored nothing: Backup {} has nothing of namespace {from}",
                spec.backup_name
            ));
        }
        if self.strangers.is_empty() {
            return StepProgress::Succeeded;
        }
        let strangers: Vec<String> = self.strangers.iter().cloned().collect();
        StepProgress::Failed(format!(
            "Restore {restore} is Completed, and in namespace {into} is what it did not create, so that it was there before, or was written \
             meanwhile: {}",
            listed(&strangers, LISTED)
        ))
    }
}

/// What is in the namespace but for what controllers produce.
struct Found<'a> {
    objects: Vec<Object>,
    spec: &'a RestoreBackupSpec,
    /// Kind and name of bindings that name the plan's account alone, and of the Roles that they bind.
    rights: BTreeSet<(String, String)>,
}

impl<'a> Found<'a> {
    fn new(raw: Vec<Value>, spec: &'a RestoreBackupSpec, context: &StepContext) -> Self {
        let seals = context.seals.iter().map(|(namespace, seal)| (namespace.clone(), seal.uid.clone()));
        let isolated = context.namespaces.iter().cloned().collect();
        let marks = Marks { seals: seals.collect(), isolated };
        let is_within =
            |object: &Value| !text(object, "/metadata/namespace").is_empty() && !is_address(object);
        let raw = raw.into_iter().filter(is_within).collect();
        let objects = observe(raw, &marks).objects;
        let rights = rights(&objects, context);
        Self { objects, spec, rights }
    }

    /// Returns the objects that neither Kubernetes nor Resurgam puts there, and that the plan does not expect.
    fn strangers(&self) -> impl Iterator<Item = &Object> {
        self.objects.iter().filter(|object| {
            let is_expected =
                self.spec.expected.iter().any(|of| of.kind == object.kind && of.name == object.name);
            !is_expected && !self.rights.contains(&(object.kind.clone(), object.name.clone()))
        })
    }
}

/// Returns the rights of the plan's account, which it cannot work without: bindings that name nobody else, and the Roles that they bind.
fn rights(objects: &[Object], context: &StepContext) -> BTreeSet<(String, String)> {
    let is_account = |subject: &Value| {
        text(subject, "/kind") == "ServiceAccount"
            && text(subject, "/name") == context.account
            && text(subject, "/namespace") == context.plan_namespace
    };
    let is_rbac = |object: &&Object| group_of(&object.api_version) == "rbac.authorization.k8s.io";
    let bindings = objects.iter().filter(is_rbac).filter(|object| object.kind == "RoleBinding");
    let own = bindings.filter(|binding| {
        let subjects = binding.content.pointer("/subjects").and_then(Value::as_array);
        subjects.is_some_and(|subjects| !subjects.is_empty() && subjects.iter().all(is_account))
    });
    own.flat_map(|binding| {
        let role = text(&binding.content, "/roleRef/name").to_owned();
        let of_namespace = text(&binding.content, "/roleRef/kind") == "Role";
        let bound = of_namespace.then(|| ("Role".to_owned(), role));
        [Some((binding.kind.clone(), binding.name.clone())), bound].into_iter().flatten()
    })
    .collect()
}

fn is_default_account(object: &Object) -> bool {
    object.api_version == "v1" && object.kind == "ServiceAccount" && object.name == "default"
}

/// Returns whether the object says where a Service is.
fn is_address(object: &Value) -> bool {
    matches!(
        (group_of(text(object, "/apiVersion")), text(object, "/kind")),
        ("", "Endpoints") | ("discovery.k8s.io", "EndpointSlice")
    )
}

/// Returns the addresses of no Service that is there, but for those that the Restore created.
fn foreign_addresses(objects: &[Value], restore: Option<&str>) -> Vec<String> {
    let is_service =
        |object: &&Value| text(object, "/apiVersion") == "v1" && text(object, "/kind") == "Service";
    let services = || objects.iter().filter(is_service);
    let has_name = |name: &str| services().any(|service| text(service, "/metadata/name") == name);
    let has_service = |address: &Value| {
        let owners = address.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        let by_uid = |owner: &Value| {
            let uid = text(owner, "/uid");
            services().any(|service| !uid.is_empty() && text(service, "/metadata/uid") == uid)
        };
        // Slices that mirror Endpoints belong to these, which have their Service's name.
        let mirrors = |owner: &Value| text(owner, "/kind") == "Endpoints" && has_name(text(owner, "/name"));
        match text(address, "/kind") {
            "Endpoints" => has_name(text(address, "/metadata/name")),
            _ => owners.into_iter().flatten().any(|owner| by_uid(owner) || mirrors(owner)),
        }
    };
    let is_foreign = |address: &&Value| {
        is_address(address) && !has_service(address) && (restore.is_none() || label(address) != restore)
    };
    let named = |object: &Value| {
        let [kind, namespace, name] =
            ["/kind", "/metadata/namespace", "/metadata/name"].map(|at| text(object, at));
        format!("{kind} {namespace}/{name}")
    };
    objects.iter().filter(is_foreign).map(named).collect()
}

/// Returns the name of the Restore that created an object.
fn label(object: &Value) -> Option<&str> {
    object.pointer("/metadata/labels")?.get(RESTORE_LABEL)?.as_str()
}
