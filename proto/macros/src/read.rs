//! Reads the trait, and refuses what cannot be described.

use proc_macro2::TokenStream;
use syn::parse::Parser;
use syn::spanned::Spanned;
use syn::{
    Attribute, Error, Expr, ExprLit, FnArg, GenericArgument, Ident, ItemTrait, Lit, LitStr, Meta,
    Pat, PatIdent, PatType, PathArguments, Result, ReturnType, Signature, TraitItem, TraitItemFn,
    Type, TypePath,
};

/// Names that jsonrpsee's generated code uses in the scope of the parameters.
const TAKEN: [&str; 6] = ["context", "ext", "params", "parsed", "rpc", "seq"];

/// The declarations of a trait.
pub(crate) struct Api {
    pub(crate) namespace: String,
    /// The trait in jsonrpsee's form for clients: without documentation of parameters.
    pub(crate) item: ItemTrait,
    pub(crate) methods: Vec<Method>,
}

pub(crate) struct Method {
    /// The function of the trait.
    pub(crate) ident: Ident,
    /// Whether it can wait.
    pub(crate) is_async: bool,
    /// The name on the wire, including the namespace.
    pub(crate) name: String,
    pub(crate) doc: String,
    pub(crate) deprecated: bool,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) result: Type,
}

pub(crate) struct Parameter {
    pub(crate) ident: Ident,
    /// The name on the wire.
    pub(crate) name: String,
    pub(crate) doc: String,
    pub(crate) required: bool,
    pub(crate) ty: Type,
}

pub(crate) fn api(arguments: TokenStream, item: TokenStream) -> Result<Api> {
    let namespace = namespace(arguments)?;
    let mut item: ItemTrait = syn::parse2(item)?;
    let mut errors = Errors::default();

    if documentation(&item.attrs).is_empty() {
        errors.push(&item.ident, format!("trait `{}` has no documentation", item.ident));
    }
    if let Some(attribute) = item.attrs.iter().find(|a| !a.path().is_ident("doc")) {
        errors.push(attribute, "only documentation reaches the generated traits");
    }
    if !item.generics.params.is_empty() || !item.supertraits.is_empty() {
        errors.push(&item.ident, "an RPC trait has neither generics nor supertraits");
    }

    let mut methods: Vec<Method> = Vec::new();
    for entry in &mut item.items {
        let TraitItem::Fn(function) = entry else {
            errors.push(entry, "an RPC trait has methods only");
            continue;
        };
        let Some(method) = errors.keep(method(&namespace, function)) else {
            continue;
        };
        if methods.iter().any(|other| other.name == method.name) {
            errors.push(&function.sig.ident, format!("`{}` is declared twice", method.name));
        }
        methods.push(method);
    }
    errors.finish(Api { namespace, item, methods })
}

fn namespace(arguments: TokenStream) -> Result<String> {
    let mut namespace = None;
    let span = arguments.span();
    syn::meta::parser(|meta| {
        if !meta.path.is_ident("namespace") {
            return Err(meta.error("expected `namespace = \"..\"`"));
        }
        let literal: LitStr = meta.value()?.parse()?;
        if !is_snake_case(&literal.value()) {
            return Err(Error::new(literal.span(), "a namespace is one word in lower case"));
        }
        namespace = Some(literal.value());
        Ok(())
    })
    .parse2(arguments)?;
    namespace.ok_or_else(|| Error::new(span, "expected `namespace = \"..\"`"))
}

/// Reads one method, and converts its function to jsonrpsee's form.
fn method(namespace: &str, function: &mut TraitItemFn) -> Result<Method> {
    let mut errors = Errors::default();
    let name = errors.keep(method_name(function));
    let doc = documentation(&function.attrs);
    let ident = &function.sig.ident;
    if doc.is_empty() {
        errors.push(ident, format!("method `{ident}` has no documentation"));
    }
    if let Some(body) = &function.default {
        errors.push(body, "a method of an RPC trait has no body");
    }
    let result = errors.keep(result(&function.sig));
    let parameters = errors.keep(parameters(&mut function.sig));
    let deprecated = function.attrs.iter().any(|a| a.path().is_ident("deprecated"));
    errors.finish(())?;

    let (Some(name), Some(result), Some(parameters)) = (name, result, parameters) else {
        return Err(Error::new_spanned(&function.sig, "this method could not be read"));
    };
    let name = format!("{namespace}.{name}");
    let (ident, is_async) = (function.sig.ident.clone(), function.sig.asyncness.is_some());
    if let ReturnType::Type(_, ty) = &mut function.sig.output {
        **ty = syn::parse_quote!(::jsonrpsee::core::RpcResult<#result>);
    }
    Ok(Method { ident, is_async, name, doc, deprecated, parameters, result })
}

/// Reads `#[method(name = "..")]`, and adds to it the arguments that all methods have.
fn method_name(function: &mut TraitItemFn) -> Result<String> {
    let missing = || Error::new_spanned(&function.sig.ident, "expected `#[method(name = \"..\")]`");
    let mut name: Option<LitStr> = None;
    let known = ["doc", "method", "deprecated"];
    if let Some(other) =
        function.attrs.iter().find(|a| !known.iter().any(|name| a.path().is_ident(name)))
    {
        return Err(Error::new_spanned(
            other,
            "only documentation, `method` and `deprecated` reach the generated methods",
        ));
    }
    let attribute =
        function.attrs.iter().find(|a| a.path().is_ident("method")).ok_or_else(missing)?;
    attribute.parse_nested_meta(|meta| {
        if meta.path.is_ident("name") {
            name = Some(meta.value()?.parse()?);
        } else {
            return Err(meta.error("expected `name = \"..\"`"));
        }
        Ok(())
    })?;
    let name = name.ok_or_else(missing)?;
    if syn::parse_str::<Ident>(&name.value()).is_err() {
        return Err(Error::new(name.span(), "a method's name is one word, without namespace"));
    }
    let full: Attribute = syn::parse_quote!(#[method(name = #name, param_kind = map)]);
    for attribute in &mut function.attrs {
        if attribute.path().is_ident("method") {
            *attribute = full.clone();
        }
    }
    Ok(name.value())
}

fn result(signature: &Signature) -> Result<Type> {
    let wrong = |at: &dyn quote::ToTokens| Error::new_spanned(at, "expected `-> RpcResult<T>`");
    let ReturnType::Type(_, ty) = &signature.output else {
        return Err(wrong(&signature.ident));
    };
    if let Type::Path(TypePath { qself: None, path }) = &**ty
        && let Some(last) = path.segments.last()
        && last.ident == "RpcResult"
        && let PathArguments::AngleBracketed(arguments) = &last.arguments
        && let (1, Some(GenericArgument::Type(inner))) =
            (arguments.args.len(), arguments.args.first())
    {
        return Ok(inner.clone());
    }
    Err(wrong(ty))
}

fn parameters(signature: &mut Signature) -> Result<Vec<Parameter>> {
    let mut errors = Errors::default();
    if !signature.generics.params.is_empty() {
        errors.push(&signature.generics, "a method of an RPC trait has no generics");
    }
    let receiver = signature
        .receiver()
        .filter(|r| r.reference.is_some() && r.mutability.is_none() && r.colon_token.is_none());
    if receiver.is_none() {
        errors.push(&signature.ident, "the first argument must be `&self`");
    }
    let mut parameters: Vec<Parameter> = Vec::new();
    for argument in &mut signature.inputs {
        let FnArg::Typed(typed) = argument else {
            continue;
        };
        let Some(parameter) = errors.keep(parameter(typed)) else {
            continue;
        };
        let name = &parameter.name;
        if parameters.iter().any(|other| other.name == *name) {
            errors.push(&typed.pat, format!("there are two parameters `{name}`"));
        }
        parameters.push(parameter);
    }
    errors.finish(parameters)
}

/// Reads one parameter, and removes its documentation, which Rust does not allow in a signature.
fn parameter(typed: &mut PatType) -> Result<Parameter> {
    let ident = match &*typed.pat {
        Pat::Ident(PatIdent { by_ref: None, mutability: None, subpat: None, ident, .. }) => {
            ident.clone()
        }
        other => {
            return Err(Error::new_spanned(other, "a parameter must be a plain name"));
        }
    };
    if TAKEN.iter().any(|taken| ident == taken) {
        let text = format!(
            "jsonrpsee's code uses `{ident}`; choose another name and `#[argument(rename = \"{ident}\")]`"
        );
        return Err(Error::new_spanned(ident, text));
    }
    let name = match typed.attrs.iter().find(|a| a.path().is_ident("argument")) {
        Some(attribute) => renamed(attribute)?,
        None => ident.to_string(),
    };
    if !is_snake_case(&name) {
        let text = format!(
            "`{name}` is not a name for the wire; choose a plain one and `#[argument(rename = \"..\")]`"
        );
        return Err(Error::new_spanned(ident, text));
    }
    let doc = parameter_documentation(&name, &ident, &typed.attrs)?;
    typed.attrs.retain(|a| !a.path().is_ident("doc"));
    if let Some(other) = typed.attrs.iter().find(|a| !a.path().is_ident("argument")) {
        return Err(Error::new_spanned(other, "expected documentation or `argument`"));
    }
    let required = !is_option(&typed.ty);
    Ok(Parameter { ident, name, doc, required, ty: (*typed.ty).clone() })
}

fn parameter_documentation(name: &str, at: &Ident, attributes: &[Attribute]) -> Result<String> {
    match documentation(attributes) {
        doc if !doc.is_empty() => Ok(doc),
        _ if name == "handle" => Ok("The handle of the socket.".to_owned()),
        _ => Err(Error::new_spanned(at, format!("parameter `{name}` has no documentation"))),
    }
}

fn renamed(attribute: &Attribute) -> Result<String> {
    let mut name = None;
    attribute.parse_nested_meta(|meta| {
        if !meta.path.is_ident("rename") {
            return Err(meta.error("expected `rename = \"..\"`"));
        }
        name = Some(meta.value()?.parse::<LitStr>()?.value());
        Ok(())
    })?;
    name.ok_or_else(|| Error::new_spanned(attribute, "expected `rename = \"..\"`"))
}

/// Recognizes an `Option` as jsonrpsee does: by the last segment of its path.
pub(crate) fn is_option(ty: &Type) -> bool {
    option_of(ty).is_some()
}

/// The type within an `Option`.
pub(crate) fn option_of(ty: &Type) -> Option<&Type> {
    let Type::Path(TypePath { path, .. }) = ty else { return None };
    let last = path.segments.last().filter(|last| last.ident == "Option")?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    match arguments.args.first() {
        Some(GenericArgument::Type(inner)) => Some(inner),
        _ => None,
    }
}

fn is_snake_case(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// The text of the doc comments, without the leading blank that rustdoc also removes.
fn documentation(attributes: &[Attribute]) -> String {
    let lines: Vec<String> = attributes
        .iter()
        .filter_map(|attribute| match &attribute.meta {
            Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
                Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value()),
                _ => None,
            },
            _ => None,
        })
        .map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned())
        .collect();
    lines.join("\n").trim().to_owned()
}

/// Collects errors, so that the author sees all of them at once.
#[derive(Default)]
struct Errors(Option<Error>);

impl Errors {
    fn push(&mut self, at: &impl quote::ToTokens, text: impl std::fmt::Display) {
        self.add(Error::new_spanned(at, text));
    }

    fn keep<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.add(error)).ok()
    }

    fn add(&mut self, error: Error) {
        match &mut self.0 {
            Some(first) => first.combine(error),
            None => self.0 = Some(error),
        }
    }

    fn finish<T>(self, value: T) -> Result<T> {
        self.0.map_or(Ok(value), Err)
    }
}
