//! One right, in RBAC's terms.

use std::fmt;

use k8s_openapi::api::authorization::v1::ResourceAttributes;
use kube::Resource;
use kube::core::NamespaceResourceScope;

/// One verb on one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Right {
    /// Where. `None`: the object is of the cluster, or it is granted in all namespaces.
    pub namespace: Option<String>,
    /// API group; empty for the core's.
    pub group: String,
    /// Plural name.
    pub resource: String,
    /// The verb.
    pub verb: &'static str,
    /// On the object of this name. `None`: on all.
    pub name: Option<String>,
}

impl Right {
    /// Returns the right to do something to the object of that name, or to all, of a kind that this crate has no type for. `namespace`:
    /// `None` for objects of the cluster.
    #[must_use]
    pub fn new(
        verb: &'static str,
        group: &str,
        resource: &str,
        namespace: Option<&str>,
        name: Option<&str>,
    ) -> Self {
        Self {
            namespace: namespace.map(str::to_owned),
            group: group.to_owned(),
            resource: resource.to_owned(),
            verb,
            name: name.map(str::to_owned),
        }
    }

    /// To list a kind in a namespace.
    #[must_use]
    pub fn list<K>(namespace: &str) -> Self
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Self::to::<K>("list", namespace, None)
    }

    /// To read one object.
    #[must_use]
    pub fn get<K>(namespace: &str, name: &str) -> Self
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Self::to::<K>("get", namespace, Some(name))
    }

    /// To read any object of a kind in a namespace, where its name is not known in advance.
    #[must_use]
    pub fn get_any<K>(namespace: &str) -> Self
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Self::to::<K>("get", namespace, None)
    }

    /// Returns the right to create objects of a kind in a namespace. RBAC cannot limit `create` by name.
    #[must_use]
    pub fn create<K>(namespace: &str) -> Self
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Self::to::<K>("create", namespace, None)
    }

    /// To patch the object of that name, or all of the kind in the namespace.
    #[must_use]
    pub fn patch<K>(namespace: &str, name: Option<&str>) -> Self
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Self::to::<K>("patch", namespace, name)
    }

    fn to<K>(verb: &'static str, namespace: &str, name: Option<&str>) -> Self
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Self {
            namespace: Some(namespace.to_owned()),
            group: K::group(&()).into_owned(),
            resource: K::plural(&()).into_owned(),
            verb,
            name: name.map(str::to_owned),
        }
    }
}

impl Right {
    /// Returns the right as the spec of a SubjectAccessReview.
    #[must_use]
    pub fn attributes(&self) -> ResourceAttributes {
        ResourceAttributes {
            group: Some(self.group.clone()),
            resource: Some(self.resource.clone()),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            verb: Some(self.verb.to_owned()),
            ..ResourceAttributes::default()
        }
    }

    /// On what, as kubectl has it: `deployments.apps/web`.
    #[must_use]
    pub fn object(&self) -> String {
        let Self { group, resource, name, .. } = self;
        let dot = if group.is_empty() { "" } else { "." };
        let slash = if name.is_some() { "/" } else { "" };
        format!("{resource}{dot}{group}{slash}{}", name.as_deref().unwrap_or_default())
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, verb, .. } = self;
        write!(f, "{verb} {}", self.object())?;
        if let Some(namespace) = namespace {
            write!(f, " in namespace {namespace}")?;
        }
        Ok(())
    }
}
