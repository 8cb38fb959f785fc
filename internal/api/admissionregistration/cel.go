package admissionregistration

import (
	"fmt"

	"github.com/google/cel-go/cel"
	v1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
)

// expression is CEL text with the types that it may give.
type expression struct {
	name, text string
	returns    []*cel.Type
}

func (e *expression) GetExpression() string    { return e.text }
func (e *expression) GetName() string          { return e.name }
func (e *expression) ReturnTypes() []*cel.Type { return e.returns }

var (
	givesBool   = []*cel.Type{cel.BoolType}
	givesString = []*cel.Type{cel.StringType}
	givesNote   = []*cel.Type{cel.StringType, cel.NullType}
	givesAny    = []*cel.Type{cel.AnyType, cel.DynType}
	// The two kinds of patches; their types are the compiler's.
	givesObject  = []*cel.Type{cel.ObjectType("Object")}
	givesPatches = []*cel.Type{cel.ListType(cel.ObjectType("JSONPatch"))}
)

// compiler checks the expressions of one object. Those that the stored object
// has already are checked in the environment of stored expressions, which a
// downgraded server keeps being able to read.
type compiler struct {
	composed *plugincel.CompositedCompiler
	options  plugincel.OptionalVariableDeclarations
	stored   sets.Set[string]
	err      error
}

func newCompiler(params bool, stored sets.Set[string]) *compiler {
	composed, err := plugincel.NewCompositedCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	return &compiler{
		composed: composed, err: err, stored: stored,
		options: plugincel.OptionalVariableDeclarations{HasParams: params, HasAuthorizer: true},
	}
}

func (c *compiler) mode(text string) environment.Type {
	if c.stored.Has(text) {
		return environment.StoredExpressions
	}
	return environment.NewExpressions
}

// check compiles text; patches makes the types of patches known to it.
func (c *compiler) check(e plugincel.ExpressionAccessor, patches bool, fldPath *field.Path) field.ErrorList {
	if c.err != nil {
		return field.ErrorList{field.InternalError(fldPath, c.err)}
	}
	options := c.options
	options.HasPatchTypes = patches
	return report(c.composed.CompileCELExpression(e, options, c.mode(e.GetExpression())), fldPath)
}

// message compiles the expression of a message, which may ask no authorizer.
func (c *compiler) message(e plugincel.ExpressionAccessor, fldPath *field.Path) field.ErrorList {
	if c.err != nil {
		return field.ErrorList{field.InternalError(fldPath, c.err)}
	}
	options := c.options
	options.HasAuthorizer = false
	return report(c.composed.CompileCELExpression(e, options, c.mode(e.GetExpression())), fldPath)
}

// define compiles a variable, which later expressions may use.
func (c *compiler) define(v v1.Variable, fldPath *field.Path) field.ErrorList {
	if c.err != nil {
		return field.ErrorList{field.InternalError(fldPath, c.err)}
	}
	return report(c.composed.CompileAndStoreVariable(&expression{name: v.Name, text: v.Expression, returns: givesAny}, c.options, c.mode(v.Expression)), fldPath)
}

func report(r plugincel.CompilationResult, fldPath *field.Path) field.ErrorList {
	if r.Error == nil {
		return nil
	}
	switch text := r.ExpressionAccessor.GetExpression(); r.Error.Type {
	case apiservercel.ErrorTypeRequired:
		return field.ErrorList{field.Required(fldPath, r.Error.Detail)}
	case apiservercel.ErrorTypeInvalid:
		return field.ErrorList{field.Invalid(fldPath, text, r.Error.Detail)}
	case apiservercel.ErrorTypeInternal:
		return field.ErrorList{field.InternalError(fldPath, r.Error)}
	default:
		return field.ErrorList{field.InternalError(fldPath, fmt.Errorf("unsupported error type: %w", r.Error))}
	}
}
